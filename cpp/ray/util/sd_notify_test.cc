#include "ray/util/sd_notify.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

namespace ray {
namespace {

// Bound to `name`, where '@' at the start means the abstract name space.
int BindDatagram(const std::string& name) {
  int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, name.data(), name.size());
  if (name[0] == '@') address.sun_path[0] = '\0';
  auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  return fd;
}

class SdNotifyTest : public testing::TestWithParam<const char*> {};

TEST_P(SdNotifyTest, SendsTheState) {
  std::string name = GetParam() + std::to_string(::getpid());
  int fd = BindDatagram(name);
  Status status = SdNotify(name, "READY=1");
  EXPECT_TRUE(status.ok()) << status.ToString();
  char text[64];
  ssize_t n = ::recv(fd, text, sizeof(text), 0);
  EXPECT_EQ(std::string(text, n > 0 ? static_cast<size_t>(n) : 0), "READY=1");
  ::close(fd);
  if (name[0] == '/') ::unlink(name.c_str());
}

INSTANTIATE_TEST_SUITE_P(Names, SdNotifyTest, testing::Values("@raycore_sd_notify_test_", "/tmp/raycore_sd_notify_test_"));

TEST(SdNotifyErrorTest, NoSocketIsFineABadOneIsNot) {
  EXPECT_TRUE(SdNotify("", "READY=1").ok());
  EXPECT_EQ(SdNotify("relative", "READY=1").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(SdNotify("/" + std::string(200, 'x'), "READY=1").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(SdNotify("/no/such/socket", "READY=1").code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace ray
