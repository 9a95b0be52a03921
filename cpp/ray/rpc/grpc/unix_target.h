// Long socket paths for gRPC, which copies them into sun_path (108 bytes).
#pragma once

#include <string>

#include "ray/util/status.h"

namespace ray::rpc {

// A gRPC address of the same socket that fits: a path that is too long goes through a descriptor of its folder, which the holder keeps open.
class UnixTarget {
 public:
  // Takes "unix:/path" and anything else, which is left as it is.
  static Result<UnixTarget> Make(const std::string& address);
  UnixTarget(UnixTarget&& other) noexcept;
  UnixTarget& operator=(UnixTarget&& other) noexcept;
  ~UnixTarget();
  const std::string& address() const { return address_; }

 private:
  UnixTarget(std::string address, int folder_fd) : address_(std::move(address)), folder_fd_(folder_fd) {}
  std::string address_;
  int folder_fd_;  // -1: not needed
};

}  // namespace ray::rpc
