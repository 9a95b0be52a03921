#include "ray/common/ids.h"

#include <pthread.h>
#include <sys/random.h>

#include <atomic>
#include <cerrno>
#include <mutex>

namespace ray {
namespace {

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Tells a process from the one that it was forked from, without the system call that getpid is.
uint32_t ForkGeneration() {
  static std::atomic<uint32_t> generation{1};
  static const int registered = pthread_atfork(nullptr, nullptr, [] { generation.fetch_add(1, std::memory_order_relaxed); });
  RAY_CHECK(registered == 0) << "pthread_atfork";
  return generation.load(std::memory_order_relaxed);
}

struct RandomPool {
  uint32_t generation = 0;  // of the process that filled it
  size_t used = sizeof(bytes);
  uint8_t bytes[512];
};

thread_local const ScopedRandomSource::Source* random_source = nullptr;

// Random start per thread and process, then counted: two streams would have to start within each other's range to meet.
uint64_t NextUnique() {
  thread_local uint64_t next = 0;
  thread_local uint32_t generation = 0;
  if (random_source != nullptr) {
    uint64_t unique;
    FillRandom(&unique, sizeof unique);
    return unique;
  }
  if (const uint32_t now = ForkGeneration(); generation != now) {
    FillRandom(&next, sizeof next);
    generation = now;
  }
  return next++;
}

}  // namespace

ScopedRandomSource::ScopedRandomSource(Source source) : source_(std::move(source)) {
  RAY_CHECK(random_source == nullptr) << "a second source of random bytes on one thread";
  random_source = &source_;
}

ScopedRandomSource::~ScopedRandomSource() { random_source = nullptr; }

void FillRandom(void* out, size_t size) {
  if (random_source != nullptr) return (*random_source)(out, size);
  thread_local RandomPool pool;
  auto* dst = static_cast<uint8_t*>(out);
  const uint32_t generation = ForkGeneration();
  while (size > 0) {
    if (pool.used == sizeof(pool.bytes) || pool.generation != generation) {  // a forked child must not repeat its parent
      size_t have = 0;
      while (have < sizeof(pool.bytes)) {
        ssize_t n = getrandom(pool.bytes + have, sizeof(pool.bytes) - have, 0);
        RAY_CHECK(n > 0 || errno == EINTR) << "getrandom failed";
        if (n > 0) have += static_cast<size_t>(n);
      }
      pool.used = 0;
      pool.generation = generation;
    }
    size_t n = std::min(size, sizeof(pool.bytes) - pool.used);
    std::memcpy(dst, pool.bytes + pool.used, n);
    pool.used += n;
    dst += n;
    size -= n;
  }
}

std::string BytesToHex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (unsigned char c : bytes) {
    out.push_back(kDigits[c >> 4]);
    out.push_back(kDigits[c & 15]);
  }
  return out;
}

std::optional<std::string> HexToBytes(std::string_view hex) {
  if (hex.size() % 2 != 0) return std::nullopt;
  std::string out;
  out.reserve(hex.size() / 2);
  for (size_t i = 0; i < hex.size(); i += 2) {
    int hi = HexValue(hex[i]), lo = HexValue(hex[i + 1]);
    if (hi < 0 || lo < 0) return std::nullopt;
    out.push_back(static_cast<char>(hi << 4 | lo));
  }
  return out;
}

JobId JobId::FromInt(uint32_t value) {
  JobId id;
  for (int i = 0; i < 4; ++i)
    id.bytes_[i] = static_cast<uint8_t>(value >> (8 * i));  // little-endian: job 1 is shown as 01000000, as in Ray
  return id;
}

uint32_t JobId::ToInt() const { return uint32_t{bytes_[3]} << 24 | uint32_t{bytes_[2]} << 16 | uint32_t{bytes_[1]} << 8 | bytes_[0]; }

ActorId ActorId::Of(const JobId& job) {
  ActorId id;
  FillRandom(id.bytes_.data(), 12);
  std::memcpy(id.bytes_.data() + 12, job.data(), 4);
  return id;
}

JobId ActorId::job_id() const { return JobId::FromBytes(bytes_.data() + 12); }

TaskId TaskId::Of(const JobId& job, const ActorId& actor) {
  TaskId id;
  uint64_t unique = NextUnique();
  std::memcpy(id.bytes_.data(), &unique, 8);
  if (!actor.IsNil()) {
    std::memcpy(id.bytes_.data() + 8, actor.data(), ActorId::kSize);
  } else {
    std::memcpy(id.bytes_.data() + 20, job.data(), JobId::kSize);
  }
  return id;
}

TaskId TaskId::ForActorCreation(const ActorId& actor) {
  TaskId id;
  std::memcpy(id.bytes_.data() + 8, actor.data(), ActorId::kSize);
  return id;
}

ActorId TaskId::actor_id() const {
  ActorId none;
  if (std::memcmp(bytes_.data() + 8, none.data(), 12) == 0) return none;
  return ActorId::FromBytes(bytes_.data() + 8);
}

JobId TaskId::job_id() const { return JobId::FromBytes(bytes_.data() + 20); }

ObjectId ObjectId::Of(const TaskId& task, uint32_t index) {
  ObjectId id;
  std::memcpy(id.bytes_.data(), task.data(), TaskId::kSize);
  for (int i = 0; i < 4; ++i) id.bytes_[24 + i] = static_cast<uint8_t>(index >> (8 * i));
  return id;
}

TaskId ObjectId::task_id() const { return TaskId::FromBytes(bytes_.data()); }

uint32_t ObjectId::index() const {
  return uint32_t{bytes_[24]} | uint32_t{bytes_[25]} << 8 | uint32_t{bytes_[26]} << 16 | uint32_t{bytes_[27]} << 24;
}

struct PutIdGenerator::State {
  std::mutex mu;
  TaskId task;
  uint32_t next = 0;
  bool started = false;
};

std::shared_ptr<PutIdGenerator::State> PutIdGenerator::MakeState() { return std::make_shared<State>(); }

ObjectId PutIdGenerator::Next() {
  std::lock_guard lock(state_->mu);
  if (!state_->started || state_->next == ObjectId::kPutBit) {
    state_->task = TaskId::Of(job_, ActorId::Nil());
    state_->next = 0;
    state_->started = true;
  }
  return ObjectId::Of(state_->task, ObjectId::kPutBit | state_->next++);
}

}  // namespace ray
