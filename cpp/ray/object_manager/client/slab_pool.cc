#include "ray/object_manager/client/slab_pool.h"

#include <algorithm>
#include <utility>

namespace ray::object_manager {

std::optional<SlabPool::Place> SlabPool::Allocate(uint64_t size) {
  if (size > slab_bytes_ / kObjectsInSlab) return std::nullopt;
  const uint64_t block = ArenaAllocator::BlockSize(size);
  if (block > slab_bytes_ / kObjectsInSlab) return std::nullopt;
  ++objects_;
  if (patience_ > 0) --patience_;
  const uint64_t align = block >= ArenaAllocator::kLargeSize ? ArenaAllocator::kPageSize : ArenaAllocator::kAlignment;
  for (;;) {
    const uint64_t offset = (current_.next + align - 1) & ~(align - 1);
    if (offset <= current_.end && block <= current_.end - offset) {
      if (offset > current_.next) returned_.push_back({{current_.next, offset}});
      current_.next = offset + block;
      return Place{offset, std::min(current_.warm_end, offset + size)};
    }
    if (ahead_.left() == 0) return std::nullopt;  // smaller ones may still fit the current slab
    Return(&current_);
    current_ = std::exchange(ahead_, {});
  }
}

bool SlabPool::StartLease() {
  if (slab_bytes_ == 0 || leasing_ || patience_ > 0 || objects_ < 2 || ahead_.left() > 0 || current_.left() > slab_bytes_ / 2) return false;
  leasing_ = true;
  return true;
}

void SlabPool::OnSlab(uint64_t offset, uint64_t size, uint64_t warm_bytes) {
  leasing_ = false;
  if (size == 0) {
    patience_ = kPatience;
    return;
  }
  (current_.left() == 0 ? current_ : ahead_) = {offset, offset + size, offset + warm_bytes};
}

void SlabPool::OnAborted(uint64_t offset, uint64_t size) {
  returned_.push_back({{offset, offset + ArenaAllocator::BlockSize(size)}, true});
}

void SlabPool::GiveBack() {
  Return(&current_);
  Return(&ahead_);
  objects_ = 0;
}

void SlabPool::Return(Slab* slab) {
  if (slab->left() > 0) returned_.push_back({{slab->next, slab->end}});
  *slab = {};
}

}  // namespace ray::object_manager
