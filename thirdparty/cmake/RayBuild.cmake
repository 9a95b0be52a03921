# How everything of ours is compiled, and the functions that declare targets:
#   ray_library(<name> SRCS <files> [DEPS <targets>])       static library
#   ray_executable(<name> SRCS <files> [DEPS <targets>])
#   ray_test(<name> SRCS <files> [DEPS <targets>] [TIMEOUT <seconds>] [LABELS <labels>])   GoogleTest binary, main included, run by ctest;
#       target tests_<label> builds those of a label. Label "threads": several threads share state, so it also runs under ThreadSanitizer.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# Position independent executables need the linker told as well.
include(CheckPIESupported)
check_pie_supported(LANGUAGES CXX)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()
# -g1: file and line for stack traces, at a fraction of the size of -g.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
set(CMAKE_CXX_FLAGS_RELEASE "-O2")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

# Flags of our own sources; generated ones get the same less the warnings.
add_library(ray_flags INTERFACE)
target_include_directories(ray_flags INTERFACE ${CMAKE_SOURCE_DIR}/cpp)
# Paths in __FILE__ and debug information are relative to the source tree, so that builds from any folder give (and cache) the same objects.
target_compile_options(ray_flags INTERFACE -ffile-prefix-map=${CMAKE_SOURCE_DIR}=. -fstack-protector-strong -fno-plt)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_options(ray_flags INTERFACE -fcf-protection)
endif()
if(RAY_SANITIZE)
  target_compile_options(ray_flags INTERFACE -fsanitize=${RAY_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(ray_flags INTERFACE -fsanitize=${RAY_SANITIZE})
else()
  # glibc refuses _FORTIFY_SOURCE without optimisation; sanitizers do its work better.
  target_compile_options(ray_flags INTERFACE $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE$<SEMICOLON>-D_FORTIFY_SOURCE=2>)
  target_link_options(ray_flags INTERFACE -Wl,-z,relro,-z,now)
endif()

add_library(ray_warnings INTERFACE)
target_compile_options(ray_warnings INTERFACE -Wall -Wextra $<$<BOOL:${RAY_WERROR}>:-Werror> -Wno-unused-parameter -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND RAY_SANITIZE)
  # The instrumented code confuses GCC's flow analysis into false reports.
  target_compile_options(ray_warnings INTERFACE -Wno-maybe-uninitialized -Wno-error=stringop-overflow -Wno-error=array-bounds)
elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(ray_warnings INTERFACE -Wthread-safety)
endif()

function(ray_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS")
  add_library(${name} STATIC ${arg_SRCS})
  target_link_libraries(${name} PUBLIC ray_flags ${arg_DEPS} PRIVATE ray_warnings)
endfunction()

function(ray_executable name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS")
  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE ray_flags ray_warnings ${arg_DEPS})
endfunction()

function(ray_test name)
  if(NOT RAY_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SRCS;DEPS;LABELS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE ray_flags ray_warnings ${arg_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}")
  foreach(label IN LISTS arg_LABELS)
    if(NOT TARGET tests_${label})
      add_custom_target(tests_${label})
    endif()
    add_dependencies(tests_${label} ${name})
  endforeach()
endfunction()
