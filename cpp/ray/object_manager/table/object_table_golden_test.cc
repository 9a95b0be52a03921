// Replays tests/scenarios/object_table. Objects, clients, owners and tokens are numbers; the time goes on by `after`. The events:
//   config capacity= disk slab= grace=                     the first, if any
//   create TOKEN OBJECT size= client= owner= attempt= copy try   seal OBJECT client= keep      abort OBJECT client=
//   get TOKEN OBJECT... client= wait=                      release OBJECT client=        free OBJECT client= attempt=
//   lease TOKEN client=                                    put OBJECT at= size= client= owner= attempt= keep
//   keep OBJECT attempt=
//   return at= size= client= touched                       reclaimed client=             gone client=
//   owner-died OWNER    reown OBJECT OWNER    spilled OBJECT [failed]    restored OBJECT [failed]    overflow SEGMENT [failed]    after TIME    stats
#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "ray/common/errors.h"
#include "ray/object_manager/table/object_table_core.h"
#include "ray/testing/golden/golden.h"

namespace ray::object_manager {
namespace {

using testing::GoldenEvent;
using testing::SizeText;

ObjectId Id(uint64_t i) { return ObjectId::Of(TaskId(), static_cast<uint32_t>(i)); }
WorkerId Owner(uint64_t i) {
  WorkerId id;
  id.mutable_data()[0] = static_cast<uint8_t>(i);
  return id;
}

uint32_t Attempt(const GoldenEvent& event, uint32_t otherwise) { return static_cast<uint32_t>(event.Number("attempt", otherwise)); }

std::string At(const Place& place) {
  return place.segment == 0 ? " at " + SizeText(place.offset) : " in segment " + std::to_string(place.segment);
}

struct Show {
  std::ostringstream& os;
  void operator()(const CreateReplied& e) {
    os << "create " << e.token;
    if (!e.status.ok()) {
      os << " " << StatusCodeName(e.status.code()) << ": " << e.status.message();
    } else if (e.exists) {
      os << " exists";
    } else {
      os << At(e.place) << ", warm " << SizeText(e.warm_bytes);
    }
  }
  void operator()(const GetReplied& e) {
    os << "get " << e.token;
    if (!e.status.ok()) os << " " << StatusCodeName(e.status.code());
    for (const FoundObject& o : e.objects) {
      os << " " << o.id.index();
      if (o.found) {
        os << At(o.place);
      } else {
        os << (o.lost ? " lost" : " missing");
      }
    }
  }
  void operator()(const ObjectSealed& e) { os << "sealed " << e.id.index(); }
  void operator()(const ObjectDeleted& e) { os << "deleted " << e.id.index(); }
  void operator()(const ObjectEvicted& e) { os << "evicted " << e.id.index(); }
  void operator()(const SpillStarted& e) { os << "spill " << e.id.index(); }
  void operator()(const RestoreStarted& e) { os << "restore " << e.id.index() << At(e.place); }
  void operator()(const SpillForgotten& e) { os << "forget " << e.id.index(); }
  void operator()(const OverflowWanted& e) { os << "want segment " << e.segment << " of " << SizeText(e.size); }
  void operator()(const OverflowReleased& e) { os << "release segment " << e.segment; }
  void operator()(const ReclaimAsked& e) {
    os << "ask client " << e.client << " for";
    for (const ObjectId& id : e.ids) os << " " << id.index();
    if (e.slabs) os << " slabs";
  }
  void operator()(const SlabReplied& e) {
    os << "lease " << e.token;
    if (e.size == 0) {
      os << " refused";
    } else {
      os << " at " << SizeText(e.offset) << ", " << SizeText(e.size) << ", warm " << SizeText(e.warm_bytes);
    }
  }
};

class Replay {
 public:
  std::vector<std::string> operator()(const GoldenEvent& event) {
    if (event.name() == "config") {
      config_.capacity = event.Number("capacity", config_.capacity);
      config_.disk = event.Has("disk");
      config_.slab_bytes = event.Number("slab", config_.slab_bytes);
      config_.create_grace = event.Span("grace", config_.create_grace);
      core_ = std::make_shared<ObjectTableCore>(config_);
      return {};
    }
    if (core_ == nullptr) core_ = std::make_shared<ObjectTableCore>(config_);
    if (event.name() == "stats") return {StatsText()};
    Effects effects;
    Carry(event, &effects);
    EXPECT_EQ(core_->TEST_CheckInvariants(), "") << "after " << event.name();
    return testing::EffectLines<Show>(effects);
  }

 private:
  void Carry(const GoldenEvent& event, Effects* out) {
    const std::string& name = event.name();
    const ClientId client = event.Number("client", 1);
    const Status status = event.Has("failed") ? Status::Internal("it failed") : Status();
    if (name == "create") {
      CreateRequest request{.token = event.Number(0), .client = client, .id = Id(event.Number(1)), .size = event.Number("size", 0)};
      request.owner = Owner(event.Number("owner", client));
      request.primary = !event.Has("copy");
      request.try_only = event.Has("try");
      request.attempt = Attempt(event, 0);
      core_->Create(request, now_, out);
    } else if (name == "seal") {
      core_->Seal(client, Id(event.Number(0)), event.Has("keep"), now_, out);
    } else if (name == "abort") {
      core_->Abort(client, Id(event.Number(0)), now_, out);
    } else if (name == "get") {
      std::vector<ObjectId> ids;
      for (uint64_t i : event.NumbersFrom(1)) ids.push_back(Id(i));
      core_->Get(event.Number(0), client, ids, now_, now_ + event.Span("wait", {}), out);
    } else if (name == "release") {
      core_->Release(client, Id(event.Number(0)), now_, out);
    } else if (name == "free") {
      core_->Free({Id(event.Number(0)), Attempt(event, CopyRun::kAny)}, now_, out, event.Number("client", 0));
    } else if (name == "keep") {
      core_->Keep({Id(event.Number(0)), Attempt(event, CopyRun::kAny)}, now_, out);
    } else if (name == "lease") {
      core_->LeaseSlab(event.Number(0), client, now_, out);
    } else if (name == "put") {
      core_->Put({client, Id(event.Number(0)), event.Number("at", 0), event.Number("size", 0), "RAW", Owner(event.Number("owner", client)),
                  event.Has("keep"), Attempt(event, 0)},
                 now_, out);
    } else if (name == "return") {
      const uint64_t begin = event.Number("at", 0);
      core_->ReturnSlab(client, {begin, begin + event.Number("size", 0)}, event.Has("touched"), now_, out);
    } else if (name == "reclaimed") {
      core_->OnReclaimed(client, now_, out);
    } else if (name == "gone") {
      core_->ClientGone(client, now_, out);
    } else if (name == "owner-died") {
      core_->OwnerDied(Owner(event.Number(0)), now_, out);
    } else if (name == "reown") {
      core_->Reown(Id(event.Number(0)), Owner(event.Number(1)), now_);
    } else if (name == "spilled") {
      core_->OnSpilled(Id(event.Number(0)), status, now_, out);
    } else if (name == "restored") {
      core_->OnRestored(Id(event.Number(0)), status, now_, out);
    } else if (name == "overflow") {
      core_->OnOverflow(event.Number(0), status, now_, out);
    } else if (name == "after") {
      now_ = now_ + event.Span(0);
      core_->OnTimer(now_, out);
    } else {
      event.Fail("no such event: " + name);
    }
  }
  std::string StatsText() const {
    const TableStats stats = core_->Stats();
    return "used " + SizeText(stats.used) + ", objects " + std::to_string(stats.num_objects) + ", pinned " + std::to_string(stats.pinned) +
           ", waiting " + std::to_string(stats.queued_creates) + ", slabs " + SizeText(stats.slab_bytes) + ", on disk " +
           SizeText(stats.spilled_bytes) + ", overflow " + SizeText(stats.overflow_bytes) + ", free " +
           SizeText(core_->allocator().free_bytes());
  }

  ObjectTableConfig config_{.capacity = uint64_t{64} << 20};
  std::shared_ptr<ObjectTableCore> core_;
  Time now_{1};
};

TEST(ObjectTableGoldenTest, Scenarios) {
  testing::ReplayGoldens("object_table", [] { return Replay(); });
}

}  // namespace
}  // namespace ray::object_manager
