# Files that the program carries inside: cmake/embed.cmake turns each into a C file with its
# bytes, in the build folder. Runs twice: included by CMakeLists.txt, and as a script (-P).

if(CMAKE_SCRIPT_MODE_FILE)
  file(READ ${INPUT} bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "(................................................................................)"
         "\\1\n" bytes "${bytes}")
  file(WRITE ${OUTPUT} "/* Made from ${INPUT} by cmake/embed.cmake. */\n"
       "#include \"base/asset.h\"\n\n"
       "extern const attn_asset ${SYMBOL};\n\n"
       "static const unsigned char bytes[] = {\n${bytes}\n};\n\n"
       "const attn_asset ${SYMBOL} = {(const char *)bytes, sizeof bytes};\n")
  return()
endif()

# attn_embed(target symbol file): defines `const attn_asset symbol` (src/base/asset.h).
function(attn_embed target symbol file)
  set(output ${CMAKE_CURRENT_BINARY_DIR}/embedded/${symbol}.c)
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${file} -DOUTPUT=${output} -DSYMBOL=${symbol}
            -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${file} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()

# Chart.js draws the charts of the HTML report (Debian and Ubuntu: libjs-chart.js).
find_file(CHART_JS_FILE chart.min.js PATHS /usr/share/javascript/chart.js
          DOC "Chart.js 3, minified" NO_DEFAULT_PATH)
if(NOT CHART_JS_FILE)
  message(FATAL_ERROR "chart.min.js was not found: apt-get install libjs-chart.js, or give its "
                      "place with -DCHART_JS_FILE=FILE, or build without the tool (-DATTN_TOOL=off)")
endif()
attn_embed(attn_tool attn_asset_chart_js ${CHART_JS_FILE})
foreach(asset style.css report.js cost.js)
  string(REPLACE "." "_" symbol ${asset})
  attn_embed(attn_tool attn_asset_${symbol} ${PROJECT_SOURCE_DIR}/src/report/assets/${asset})
endforeach()

# What the cost model knows of devices and models.
foreach(catalog devices models)
  attn_embed(attn_tool attn_asset_${catalog}_json ${PROJECT_SOURCE_DIR}/data/${catalog}.json)
endforeach()
