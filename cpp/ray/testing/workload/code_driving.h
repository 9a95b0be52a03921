// CodeDriving: one driver of a CodeWorkload at work. It does one thing after the other, as the seed decides, and takes up what is due of them later: Pending says what
// must come of each. Kinds of programs have a file each: code_tasks.cc, code_actors.cc, code_borrows.cc. Lives on its driver's thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ray/testing/workload/code_workload.h"

namespace ray::sim {

inline constexpr int32_t kForEver = -1;
inline constexpr Duration kMaxRun = std::chrono::milliseconds(300);  // of a function

inline int64_t Number(const std::string& text) { return std::stoll(text); }
inline std::string ErrorText(const Got& got) { return "error " + std::to_string(static_cast<int32_t>(got.error)) + ": " + got.message; }
// What the ref stands for; or what the first ref inside of it does, and so on.
Got ReadThrough(Session* session, const Ref& ref, const std::string& what);

// Of an actor of class Log.
struct LogState {
  uint64_t incarnation = 0, next = 0;
  std::map<std::string, Ref> kept;
};

class CodeDriving {
 public:
  CodeDriving(CodeWorkload* workload, CodeDriver* driver);
  void Run();

 private:
  struct Pending {
    Ref ref;
    std::string what;
    std::string expected;  // empty: a value with a ref inside, whose value this is in `inner`
    std::string inner;
    bool may_fail = false;          // the cluster's troubles can make it fail
    std::vector<std::string> also;  // right as well
    bool cancelled = false;
    uint64_t lends = 0, reads = 0;  // numbers of loans
    int actor = -1;                 // a call of this one's log
    CallId call;
  };
  struct Actor {
    ActorHandle handle;
    int32_t restarts = 0, retries = 0;
    uint64_t caller = 0, calls = 0;
    bool known = false, killed = false;
  };

  int32_t AnyRetries() { return random_.Chance(0.5) ? kForEver : static_cast<int32_t>(random_.Between(0, 3)); }
  void Act();
  void Add(Pending pending) { pending_.push_back(std::move(pending)); }
  void Settle(size_t which);
  void WaitForSome();
  void CancelOne();
  void Clear();

  // code_tasks.cc
  void AddGraph();
  void AddShaky();
  void AddTree();
  void ReadStream();

  // code_actors.cc
  void AddActor();
  void CallActor();
  void CallFromTask();
  void KillActor();

  // code_borrows.cc
  void AddRelay();
  void KeepAtActor();
  void Lend();
  void ReadSomeLoan();
  void ReadLoan(uint64_t number);
  // What a read of a loan gave, that an actor was known to have: if its owner is gone it may be lost, but nobody has freed it.
  void CheckLoan(uint64_t number, const Got& got, const std::string& of);
  // Nobody lends to them any more.
  void CloseActors();

  CodeWorkload& workload_;
  CodeDriver* const driver_;
  Session& session_;
  Random random_;
  std::vector<Pending> pending_;
  std::vector<Actor> actors_;  // every one, so that calls find theirs
  uint64_t kept_ = 0;
  std::vector<uint64_t> ours_;                           // loans of this driver
  std::vector<std::pair<Ref, std::string>> lent_to_us_;  // that came out of actors, and what they stand for
  bool cancelled_ = false;                               // something was
};

}  // namespace ray::sim
