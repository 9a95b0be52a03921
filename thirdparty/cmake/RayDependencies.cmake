# What we link that is not ours; thirdparty/versions.txt names the versions.
# Debian's static libraries are not position independent, so everything is linked dynamically.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

find_program(PROTOC_PROGRAM protoc REQUIRED)
pkg_check_modules(PROTOBUF_LITE REQUIRED IMPORTED_TARGET protobuf-lite)

# Only the executables need these (targets below are used by rpc/grpc and gcs_server).
pkg_check_modules(GRPCPP QUIET IMPORTED_TARGET grpc++)
pkg_check_modules(SQLITE3 QUIET IMPORTED_TARGET sqlite3)
pkg_check_modules(HIREDIS QUIET IMPORTED_TARGET hiredis)

if(RAY_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
