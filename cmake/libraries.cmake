# Third-party packages, each behind one interface target lib_<name>. tools/install_packages has their Debian names;
# THIRD_PARTY_NOTICES their licences.
#
# PMETAL_PORTABLE links archives where Debian has them. simdjson has none: its shared library is laid beside the
# programs ($ORIGIN). tests/portable.cmake checks what is left.
find_package(PkgConfig REQUIRED)

# pmetal_pkg(target pkg-config-module [archive]): `archive` replaces the shared library in a portable build
function(pmetal_pkg target module)
  string(MAKE_C_IDENTIFIER ${module} id)
  pkg_check_modules(${id} REQUIRED IMPORTED_TARGET ${module})
  add_library(${target} INTERFACE)
  if(PMETAL_PORTABLE AND ARGC GREATER 2)
    target_include_directories(${target} SYSTEM INTERFACE ${${id}_INCLUDE_DIRS})
    target_link_libraries(${target} INTERFACE -l:${ARGV2})
  else()
    target_link_libraries(${target} INTERFACE PkgConfig::${id})
  endif()
endfunction()

if(PMETAL_PORTABLE)
  add_link_options(-static-libstdc++ -static-libgcc)
  set(CMAKE_BUILD_RPATH_USE_ORIGIN ON)
  set(CMAKE_BUILD_RPATH "$ORIGIN")
endif()

add_library(lib_fmt INTERFACE)
if(PMETAL_PORTABLE)
  target_compile_definitions(lib_fmt INTERFACE FMT_HEADER_ONLY=1)
else()
  find_package(fmt REQUIRED)
  target_link_libraries(lib_fmt INTERFACE fmt::fmt)
endif()

add_library(lib_json INTERFACE)        # nlohmann: header only
pmetal_pkg(lib_yaml yaml-cpp libyaml-cpp.a)
pmetal_pkg(lib_zlib zlib libz.a)
pmetal_pkg(lib_zstd libzstd libzstd.a)
add_library(lib_snappy INTERFACE)      # has no pkg-config file
target_link_libraries(lib_snappy INTERFACE $<IF:$<BOOL:${PMETAL_PORTABLE}>,-l:libsnappy.a,snappy>)
pmetal_pkg(lib_simdjson simdjson)
if(PMETAL_PORTABLE)
  find_library(PMETAL_SIMDJSON simdjson REQUIRED)
  file(REAL_PATH ${PMETAL_SIMDJSON} simdjson_file)
  string(REGEX REPLACE "([.]so[.][0-9]+).*" "\\1" simdjson_name ${simdjson_file})
  get_filename_component(simdjson_name ${simdjson_name} NAME)
  configure_file(${simdjson_file} ${CMAKE_BINARY_DIR}/${simdjson_name} COPYONLY)
endif()
pmetal_pkg(lib_pcre2 libpcre2-8 libpcre2-8.a)
pmetal_pkg(lib_utf8proc libutf8proc libutf8proc.a)
pmetal_pkg(lib_curl libcurl)           # shared in a portable build too: every distribution keeps these two up to date
pmetal_pkg(lib_crypto libcrypto)
if(PMETAL_TESTS)
  find_package(GTest REQUIRED)
  add_library(lib_gtest INTERFACE)
  target_link_libraries(lib_gtest INTERFACE GTest::gtest GTest::gmock GTest::gtest_main)
endif()
