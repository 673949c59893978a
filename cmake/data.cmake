# The program's own data files: found in the source tree while developing, and installed.
include(GNUInstallDirs)
set_source_files_properties(src/data/data_path.c PROPERTIES COMPILE_DEFINITIONS
  "ATTN_SOURCE_DATA=\"${PROJECT_SOURCE_DIR}/data\";ATTN_INSTALLED_DATA=\"${CMAKE_INSTALL_FULL_DATADIR}/attnscope\"")
install(DIRECTORY data/ DESTINATION ${CMAKE_INSTALL_DATADIR}/attnscope)
