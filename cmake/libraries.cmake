# Third-party packages, each behind one interface target lib_<name>. tools/install_packages has their Debian names;
# THIRD_PARTY_NOTICES their licences.
find_package(PkgConfig REQUIRED)
function(pmetal_pkg target module)
  string(MAKE_C_IDENTIFIER ${module} id)
  pkg_check_modules(${id} REQUIRED IMPORTED_TARGET ${module})
  add_library(${target} INTERFACE)
  target_link_libraries(${target} INTERFACE PkgConfig::${id})
endfunction()

add_library(lib_fmt INTERFACE)
if(PMETAL_PORTABLE)
  target_compile_definitions(lib_fmt INTERFACE FMT_HEADER_ONLY=1)
else()
  find_package(fmt REQUIRED)
  target_link_libraries(lib_fmt INTERFACE fmt::fmt)
endif()

# Debian's default is 1.74; ours is libboost1.81-dev, which puts its headers at the same place and excludes that one
find_package(Boost 1.81 REQUIRED)
add_library(lib_boost INTERFACE)       # Describe: header only
target_link_libraries(lib_boost INTERFACE Boost::headers)
add_library(lib_json INTERFACE)        # nlohmann: header only
add_library(lib_cli11 INTERFACE)       # CLI11: header only
pmetal_pkg(lib_yaml yaml-cpp)
pmetal_pkg(lib_zlib zlib)
pmetal_pkg(lib_zstd libzstd)
add_library(lib_snappy INTERFACE)
target_link_libraries(lib_snappy INTERFACE snappy)
pmetal_pkg(lib_simdjson simdjson)
pmetal_pkg(lib_pcre2 libpcre2-8)
pmetal_pkg(lib_utf8proc libutf8proc)
pmetal_pkg(lib_curl libcurl)
pmetal_pkg(lib_crypto libcrypto)
if(PMETAL_TESTS)
  find_package(GTest REQUIRED)
  add_library(lib_gtest INTERFACE)
  target_link_libraries(lib_gtest INTERFACE GTest::gtest GTest::gmock GTest::gtest_main)
endif()
