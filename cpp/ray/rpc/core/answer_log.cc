#include "ray/rpc/core/answer_log.h"

#include <deque>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ray/util/mutex.h"

namespace ray::rpc {
namespace {

struct Entry {
  bool answered = false;
  std::vector<Responder> waiting;  // of repeats that came before the answer
  std::string control;
  PartList parts;
  size_t bytes = 0;
};

}  // namespace

struct AnswerLog::State {
  State(size_t answers, size_t bytes) : max_answers(answers), max_bytes(bytes) {}

  void Answered(const std::string& key, std::string control, const PartList& parts) EXCLUDES(mu) {
    std::vector<Responder> waiting;
    {
      MutexLock lock(&mu);
      Entry& entry = entries.at(key);
      waiting.swap(entry.waiting);
      entry.answered = true;
      entry.control = control;
      entry.parts = parts;
      entry.bytes = key.size() + control.size();
      for (const BufferPtr& part : parts) entry.bytes += part->size();
      kept_bytes += entry.bytes;
      order.push_back(key);
      while (order.size() > max_answers || kept_bytes > max_bytes) {
        const auto oldest = entries.find(order.front());
        kept_bytes -= oldest->second.bytes;
        entries.erase(oldest);
        order.pop_front();
      }
    }
    for (Responder& responder : waiting) responder.SendRaw(control, parts);
  }

  void Failed(const std::string& key, const Status& status) EXCLUDES(mu) {
    std::vector<Responder> waiting;
    {
      MutexLock lock(&mu);
      const auto it = entries.find(key);
      waiting.swap(it->second.waiting);
      entries.erase(it);
    }
    for (Responder& responder : waiting) responder.Fail(status);
  }

  const size_t max_answers, max_bytes;
  Mutex mu;
  std::unordered_map<std::string, Entry> entries GUARDED_BY(mu);
  std::deque<std::string> order GUARDED_BY(mu);  // of answers, oldest first
  size_t kept_bytes GUARDED_BY(mu) = 0;
};

class AnswerLog::Watch final : public AnswerWatch {
 public:
  Watch(std::shared_ptr<State> state, std::string key) : state_(std::move(state)), key_(std::move(key)) {}
  void Answered(std::string control, const PartList& parts) override { state_->Answered(key_, std::move(control), parts); }
  void Failed(const Status& status) override { state_->Failed(key_, status); }

 private:
  const std::shared_ptr<State> state_;
  const std::string key_;
};

AnswerLog::AnswerLog(size_t max_answers, size_t max_bytes) : state_(std::make_shared<State>(max_answers, max_bytes)) {}
AnswerLog::~AnswerLog() = default;

bool AnswerLog::Begin(const std::string& key, Responder* responder) {
  std::string control;
  PartList parts;
  {
    MutexLock lock(&state_->mu);
    auto [it, fresh] = state_->entries.try_emplace(key);
    if (fresh) {
      responder->SetWatch(std::make_unique<Watch>(state_, key));
      return true;
    }
    if (!it->second.answered) {
      it->second.waiting.push_back(std::move(*responder));
      return false;
    }
    control = it->second.control;
    parts = it->second.parts;
  }
  responder->SendRaw(control, parts);
  return false;
}

size_t AnswerLog::size() const {
  MutexLock lock(&state_->mu);
  return state_->entries.size();
}

}  // namespace ray::rpc
