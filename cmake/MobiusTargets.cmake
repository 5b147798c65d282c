# How every target of ours is built: one place for warnings, sanitizers and include paths.

add_library(mobius_flags INTERFACE)
target_include_directories(mobius_flags INTERFACE "${CMAKE_SOURCE_DIR}")
target_compile_options(mobius_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Woverloaded-virtual
  $<$<BOOL:${MOBIUS_WERROR}>:-Werror>)
if(MOBIUS_SANITIZE)
  list(JOIN MOBIUS_SANITIZE "," _sanitizers)
  # -O1 in debug builds: without it the float64 oracle under AddressSanitizer takes most of an hour.
  # Assertions of the standard library catch what shadow memory cannot: a span's or vector's bounds
  # inside a larger allocation.
  target_compile_options(mobius_flags INTERFACE
    -fsanitize=${_sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer
    $<$<CONFIG:Debug>:-O1>)
  target_compile_definitions(mobius_flags INTERFACE _GLIBCXX_ASSERTIONS)
  target_link_options(mobius_flags INTERFACE -fsanitize=${_sanitizers})
endif()

# What tests run with: any report ends the process, so that the test fails.
if("thread" IN_LIST MOBIUS_SANITIZE)
  set(MOBIUS_TEST_ENVIRONMENT
    "TSAN_OPTIONS=halt_on_error=1,suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp")
endif()

# mobius_library(name SOURCES a.cc b.cc [PUBLIC libs] [PRIVATE libs])
function(mobius_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC mobius_flags ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
endfunction()

# mobius_executable(name SOURCES a.cc [LIBS libs])
function(mobius_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE mobius_flags ${ARG_LIBS})
endfunction()

# mobius_test(name SOURCES a_test.cc [LIBS libs]): a GoogleTest executable, one CTest entry per test.
function(mobius_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  mobius_executable(${name} SOURCES ${ARG_SOURCES} LIBS ${ARG_LIBS} GTest::gtest_main GTest::gmock)
  set(properties TIMEOUT 600)
  if(MOBIUS_TEST_ENVIRONMENT)
    list(APPEND properties ENVIRONMENT "${MOBIUS_TEST_ENVIRONMENT}")
  endif()
  gtest_discover_tests(${name} TEST_PREFIX "${name}." NO_PRETTY_VALUES DISCOVERY_MODE PRE_TEST
    PROPERTIES ${properties})
endfunction()
