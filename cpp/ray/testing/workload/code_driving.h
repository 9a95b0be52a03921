// CodeDriving: one driver of a CodeWorkload at work. It does one thing after the other, as the seed decides, and takes up what is due of them later: Pending says what
// must come of each. Kinds of programs have a file each: code_tasks.cc, code_actors.cc, code_borrows.cc, code_groups.cc,
// code_names.cc. Lives on its driver's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
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
  // Instead, once all other drivers have left: calls and ends what they have left behind.
  void CleanUp();

 private:
  struct Pending {
    Ref ref;
    std::vector<Ref> needs = {};  // held with it
    std::string what;
    std::string expected;  // empty: a value with a ref inside, whose value this is in `inner`
    std::string inner;
    bool may_fail = false;          // the cluster's troubles can make it fail
    std::vector<std::string> also;  // right as well
    bool cancelled = false;
    uint64_t lends = 0, reads = 0;  // numbers of loans
    int actor = -1;                 // a call of this one's log
    CallId call;
    std::function<void(const Got&)> check;  // not empty: instead of all of these
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

  // code_groups.cc
  struct Group {
    PlacementGroupId id;
    std::vector<int64_t> bundles;   // slots of each
    std::vector<Pending> waiting;   // what may wait for a bundle as long as it is there
    std::shared_ptr<bool> removed;  // by us
    std::vector<Actor> actors;
  };
  void ActOnGroups();
  void AddGroup();
  void UseGroup(Group* group);
  // Makes one if there is none, and calls it.
  void AddActorInGroup(Group* group);
  void WaitForGroup(Group* group);
  // What waits has to end then.
  void RemoveGroup(size_t which);
  TaskOptions InGroup(const Group& group);
  Pending OfGroup(const Group& group, Ref ref, std::string what, std::string expected, bool may_fail);

  // code_names.cc
  void ActOnNames();
  // Which actor has the name; nil: none, or it is not known.
  ActorId LookFor(const std::string& name);
  void CreateNamed(const std::string& name);
  void CallNamed(const std::string& name, const ActorId& actor);
  void KillNamed(const std::string& name, const ActorId& actor);

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
  std::vector<uint64_t> ours_;                                      // loans of this driver
  std::vector<std::pair<Ref, std::string>> lent_to_us_;             // that came out of actors, and what they stand for
  bool cancelled_ = false;                                          // something was
  std::vector<Group> groups_;                                       // that were not removed
  std::vector<ActorHandle> named_;                                  // of ours
  std::map<ActorId, std::pair<uint64_t, uint64_t>> named_callers_;  // us as a caller of named actors, and our calls
};

}  // namespace ray::sim
