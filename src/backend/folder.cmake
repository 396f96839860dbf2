# The CPU backend is always built. The kernels of cuda/ are built where a toolkit was found (cmake/cuda.cmake); else
# cuda_stub/ takes their place: empty lists, so that asking for the device says which op has no kernel.
set(plain_sources ${sources})
list(FILTER plain_sources EXCLUDE REGEX "/backend/cuda/")
if(PMETAL_HAS_CUDA)
  list(FILTER sources EXCLUDE REGEX "/backend/cuda_stub/")
  file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.cu)
  list(APPEND sources ${kernels})
  find_package(CUDAToolkit ${PMETAL_CUDA_OLDEST} REQUIRED)
  add_library(lib_cudart INTERFACE)
  target_link_libraries(lib_cudart INTERFACE CUDA::cudart_static)
  list(APPEND arg_LIBS lib_cudart)
else()
  set(sources ${plain_sources})
  list(FILTER tests EXCLUDE REGEX "/backend/cuda/")
endif()
# Kernels are loops that the compiler vectorises. These flags change no value: they let it forget errno and traps.
if(NOT PMETAL_SANITIZE)
  set_source_files_properties(${plain_sources} PROPERTIES
    COMPILE_OPTIONS "$<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O3>;-fno-math-errno;-fno-trapping-math")
endif()
