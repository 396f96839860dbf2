# Flags, compiler cache, linker and sanitizers. No global -march: kernel files raise their own
# instruction set with a pragma after their includes, so that no inline function of a standard
# header is ever compiled for a CPU the user may not have.
find_program(PMETAL_CCACHE ccache)
if(PMETAL_CCACHE)
  # paths below the checkout count relative to it, so that several checkouts share one cache
  set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${PMETAL_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
find_program(PMETAL_MOLD mold)
if(PMETAL_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DPMETAL_RELEASE")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g")
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra> $<$<COMPILE_LANGUAGE:CXX>:-fno-strict-aliasing>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-psabi>)
endif()
if(PMETAL_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELEASE "-O1 -g1 -DPMETAL_RELEASE")   # compiles in half the time
  add_compile_options(-fsanitize=${PMETAL_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${PMETAL_SANITIZE})
endif()
find_package(Threads REQUIRED)
