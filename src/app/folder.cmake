set_source_files_properties(${CMAKE_SOURCE_DIR}/src/app/cli/cli.cc PROPERTIES COMPILE_DEFINITIONS
                            PMETAL_VERSION="${PROJECT_VERSION}")
