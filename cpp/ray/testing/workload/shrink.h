// Shrink: finds few of many causes that are enough for a failure, by trying again without the others (delta debugging: larger parts first, then
// smaller ones). What fails may depend on chance that shifts when something is left out, so the outcome is a small set, not the smallest one.
#pragma once

#include <cstddef>
#include <functional>
#include <set>

namespace ray::sim {

// Of the causes 0 ... last those that may be left out together: it fails without them still. `fails` is called at most `tries` times, never for nothing left out, of
// which it is known; then no single one more can be left out, unless the tries were used up.
std::set<size_t> Shrink(size_t last, size_t tries, const std::function<bool(const std::set<size_t>& without)>& fails);

}  // namespace ray::sim
