// Against a real Python process that speaks the zygote's protocol but runs no ray.
#include "ray/raylet/workers/zygote_launcher.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <future>

#include "ray/testing/limits/no_more_descriptors.h"
#include "ray/testing/promise/promise.h"
#include "ray/util/fs.h"

namespace ray::raylet {
namespace {

// RAY_TEST_DIE in a worker's environment makes this zygote die instead of forking, once; RAY_TEST_LOST, as soon as it has forked and waited for a worker, of
// whose end it says nothing; RAY_TEST_CHILD has the worker start a child, which holds that FIFO.
constexpr char kZygote[] = R"py(
import json, os, signal, socket, sys
s = socket.socket(fileno=int(sys.argv[2]))
send = lambda **m: s.send(json.dumps(m).encode())
open(os.environ["TEST_DIR"] + "/pid", "w").write(str(os.getpid()))
send(op="ready", pid=os.getpid())
signal.signal(signal.SIGCHLD, lambda *_: None)
rd, wr = os.pipe(); os.set_blocking(wr, False); os.set_blocking(rd, False)
signal.set_wakeup_fd(wr)
import select
while True:
    ready, _, _ = select.select([s, rd], [], [])
    if rd in ready:
        os.read(rd, 1000)
        while True:
            try: pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError: break
            if pid == 0: break
            send(op="exit", pid=pid, status=status)
    if s in ready:
        text = s.recv(65536)
        if not text: sys.exit(0)
        m = json.loads(text)
        once = os.environ["TEST_DIR"] + "/died"
        if "RAY_TEST_DIE" in m["env"] and not os.path.exists(once):
            open(once, "w").close(); os._exit(1)
        if "RAY_TEST_REFUSE" in m["env"]:
            send(op="error", token=m["token"], message="no", for_now=int(m["env"]["RAY_TEST_REFUSE"])); continue
        pid = os.fork()
        if pid == 0:
            if "RAY_TEST_LOST" in m["env"]: os._exit(0)
            if "RAY_TEST_CODE" in m["env"]: os._exit(int(m["env"]["RAY_TEST_CODE"]))
            s.close()
            if "RAY_TEST_CHILD" in m["env"]:
                os.setpgid(0, 0)
                if os.fork() == 0: os.open(m["env"]["RAY_TEST_CHILD"], os.O_WRONLY)
            signal.pause(); os._exit(0)
        if "RAY_TEST_LOST" in m["env"]: os.waitpid(pid, 0)
        send(op="forked", token=m["token"], pid=pid, group=int("RAY_TEST_CHILD" in m["env"]))
        if "RAY_TEST_LOST" in m["env"]: os._exit(1)
)py";

class ZygoteLauncherTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/zygote_test_XXXXXX";
    dir_ = mkdtemp(name);
    std::ofstream(dir_ + "/fake_zygote.py") << kZygote;
    setenv("PYTHONPATH", dir_.c_str(), 1);
    setenv("TEST_DIR", dir_.c_str(), 1);
    loop_ = std::move(*async::EpollLoop::Make({}));
    ASSERT_TRUE(loop_->Start().ok());
    ZygoteConfig config;
    config.python = "python3";
    config.module = "fake_zygote";
    config.session_dir = config.log_dir = dir_;
    config.min_backoff = std::chrono::milliseconds(1);
    OnLoop([&] {
      launcher_ = std::make_unique<ZygoteLauncher>(config, loop_.get());
      launcher_->SetEvents({[this](uint64_t, int64_t pid) { started_.set_value(pid); },
                            [this](uint64_t, const std::string& message) { failed_.set_value(message); },
                            [this](int64_t pid, int status) {
                              exited_.set_value({pid, status});
                            },
                            [this](uint64_t, const std::string& message) { refused_.set_value(message); }});
    });
  }
  void TearDown() override {
    OnLoop([this] { launcher_.reset(); });
    loop_->Stop();
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    (void)RemoveTree(dir_).ok();
  }
  template <typename F>
  void OnLoop(F fn) {
    RunOnLoop(loop_.get(), std::move(fn));
  }
  void Launch(std::map<std::string, std::string> env) {
    OnLoop([&] { launcher_->Launch({1, WorkerId::FromRandom(), JobId::FromInt(1), std::move(env)}); });
  }

  // A worker that leads a group, and has started a child.
  int64_t LaunchWithChild() {
    const std::string fifo = dir_ + "/child";
    EXPECT_EQ(mkfifo(fifo.c_str(), 0600), 0);
    Launch({{"RAY_TEST_CHILD", fifo}});
    child_ = open(fifo.c_str(), O_RDONLY | O_CLOEXEC);  // it is there
    return started_.get_future().get();
  }
  // Until the child has ended.
  void AwaitChild() {
    char byte;
    EXPECT_EQ(read(child_, &byte, 1), 0);
    close(child_);
  }

  int child_ = -1;
  std::string dir_;
  std::unique_ptr<async::EpollLoop> loop_;
  std::unique_ptr<ZygoteLauncher> launcher_;
  TestPromise<int64_t> started_;
  TestPromise<std::string> failed_, refused_;
  TestPromise<std::pair<int64_t, int>> exited_;
};

TEST_F(ZygoteLauncherTest, ForksSignalsAndTellsTheEnd) {
  Launch({});
  const int64_t pid = started_.get_future().get();
  OnLoop([&] { launcher_->Signal(pid, SIGKILL); });
  const auto [ended, status] = exited_.get_future().get();
  EXPECT_EQ(ended, pid);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

TEST_F(ZygoteLauncherTest, TellsTheExitCode) {
  Launch({{"RAY_TEST_CODE", "3"}});
  const auto [pid, status] = exited_.get_future().get();
  EXPECT_EQ(WEXITSTATUS(status), 3);
}

TEST_F(ZygoteLauncherTest, TellsWhyAForkFailed) {
  Launch({{"RAY_TEST_REFUSE", "0"}});
  EXPECT_EQ(failed_.get_future().get(), "no");
}

TEST_F(ZygoteLauncherTest, TellsWhatTheMachineRefusedForNowFromWhatFailed) {
  Launch({{"RAY_TEST_REFUSE", "1"}});
  EXPECT_EQ(refused_.get_future().get(), "no");
}

TEST_F(ZygoteLauncherTest, WithoutDescriptorsForAZygoteForksAreRefusedForNow) {
  if (kSanitizerNeedsDescriptors) GTEST_SKIP() << kWhyNotWithoutDescriptors;
  OnLoop([&] {
    NoMoreDescriptors none;
    launcher_->Launch({1, WorkerId::FromRandom(), JobId::FromInt(1), {}});
  });
  EXPECT_NE(refused_.get_future().get().find("ulimit -n"), std::string::npos);
  Launch({});
  EXPECT_GT(started_.get_future().get(), 1);
}

TEST_F(ZygoteLauncherTest, AZygoteThatDiesIsReplacedAndTheForkAskedAgain) {
  Launch({{"RAY_TEST_DIE", "1"}});
  const int64_t pid = started_.get_future().get();
  EXPECT_GT(pid, 1);
}

TEST_F(ZygoteLauncherTest, AWorkerWhoseEndTheZygoteCouldNotTellHasEndedWithIt) {
  TestPromise<Status> ready;
  OnLoop([&] { launcher_->Start([&](const Status& status) { ready.set_value(status); }); });
  ASSERT_TRUE(ready.get_future().get().ok());
  pid_t zygote = 0;
  std::ifstream(dir_ + "/pid") >> zygote;
  OnLoop([&] {
    launcher_->Launch({1, WorkerId::FromRandom(), JobId::FromInt(1), {{"RAY_TEST_LOST", "1"}}});
    int status = 0;
    ASSERT_EQ(waitpid(zygote, &status, 0), zygote);
    launcher_->OnChildReaped(zygote, status);  // while its last words are unread
  });
  const int64_t pid = started_.get_future().get();
  const auto [ended, status] = exited_.get_future().get();
  EXPECT_EQ(ended, pid);
  EXPECT_TRUE(WIFSIGNALED(status));
}

TEST_F(ZygoteLauncherTest, WhatAWorkerHasStartedEndsWithBothAtTheStop) {
  LaunchWithChild();
  OnLoop([&] { launcher_->Stop(); });
  AwaitChild();
}

TEST_F(ZygoteLauncherTest, WhatAWorkerHasStartedEndsWithItWhereTheRayletReapsIt) {
  const int64_t pid = LaunchWithChild();
  OnLoop([&] { launcher_->OnChildEnded(pid); });
  AwaitChild();
}

}  // namespace
}  // namespace ray::raylet
