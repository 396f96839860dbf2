# The CPU backend is always built. The kernels of cuda/ are built where a toolkit is found and PMETAL_CUDA is on; until
# then cuda_stub/ takes their place: empty lists, so that asking for the device says which op has no kernel.
list(FILTER sources EXCLUDE REGEX "/backend/cuda/")
# Kernels are loops that the compiler vectorises. These flags change no value: they let it forget errno and traps.
if(NOT PMETAL_SANITIZE)
  set_source_files_properties(${sources} PROPERTIES
    COMPILE_OPTIONS "$<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O3>;-fno-math-errno;-fno-trapping-math")
endif()
