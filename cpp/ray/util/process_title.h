// The name under which ps shows this process, for as long as it says.
#pragma once

#include <string_view>

namespace ray {

// Makes room for titles: the kernel reads the memory of the first command line (and of the environment behind it), which is taken over; the
// environment moves to the heap. Call once, early, while the process has one thread. Forked children may set titles, too. False: the
// place could not be found, and SetProcessTitle does nothing.
bool PrepareProcessTitle();

// A few dozen nanoseconds: it writes memory, and nothing else. Longer titles than there is room for are cut. Not thread-safe.
void SetProcessTitle(std::string_view title);

}  // namespace ray
