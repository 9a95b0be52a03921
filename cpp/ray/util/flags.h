// Command lines of our executables.
//
//   FlagParser flags("raylet", "The node's scheduler, worker pool and object store.");
//   flags.Group("Where");
//   flags.Add("session-dir", "folder of sockets and logs", &options.session_dir).Required();
//   flags.ConfigGroup("Worker pool");
//   flags.Add("worker-idle-timeout", "how long an idle worker is kept", &config.idle_timeout);
//   Result<std::optional<std::string>> help = flags.Parse(argc, argv);   // a text to print, then exit 0; or nothing: run
//
// Forms: --name=value, --name value; for a bool --name, --no-name, --name=true|false. '_' in a name reads as '-'. A list's flag may be repeated, and
// one of integers be given several with commas between: the first use replaces the default. --help shows the groups with their defaults, --help-config the config groups; both kinds are set the same way.
// Durations are numbers with a unit (250us, 10ms, 1.5s, 2m, 1h); byte counts may end in K, M, G or T (powers of 1024).
// Targets must outlive Parse. Not thread-safe.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ray/util/clock.h"
#include "ray/util/status.h"

namespace ray {

class FlagParser {
 public:
  FlagParser(std::string program, std::string summary);

  // Flags added from here on are listed under this title: by --help, or by --help-config.
  void Group(std::string title);
  void ConfigGroup(std::string title);

  // To mark the flag just added.
  class Added {
   public:
    // Parse fails without it.
    Added& Required();

   private:
    friend class FlagParser;
    Added(FlagParser* parser, size_t index) : parser_(parser), index_(index) {}
    FlagParser* parser_;
    size_t index_;
  };

  // The default is what `target` holds now. REQUIRES: the name is new.
  Added Add(std::string name, std::string help, bool* target);
  Added Add(std::string name, std::string help, double* target);
  Added Add(std::string name, std::string help, std::string* target);
  Added Add(std::string name, std::string help, Duration* target);
  Added Add(std::string name, std::string help, std::vector<std::string>* target);
  Added Add(std::string name, std::string help, std::vector<int64_t>* target);
  template <std::integral T>
  requires(!std::same_as<T, bool>) Added Add(std::string name, std::string help, T* target) {
    return AddInteger(std::move(name), std::move(help), static_cast<int64_t>(*target), std::numeric_limits<T>::min(), MaxOf<T>(),
                      [target](int64_t value) { *target = static_cast<T>(value); });
  }
  Added AddBytes(std::string name, std::string help, uint64_t* target);

  // Sets the targets. The text that --help or --help-config asked for, else nothing. INVALID_ARGUMENT names the flag and what is wrong with it.
  Result<std::optional<std::string>> Parse(int argc, const char* const* argv);

  std::string Help() const;
  std::string HelpConfig() const;

 private:
  struct Flag {
    std::string name, help, type, default_text;
    size_t group;
    bool is_bool = false, is_list = false, required = false, seen = false;
    std::function<Status(std::string_view)> set;
    std::function<void()> clear;  // lists: drops the default
  };
  struct GroupInfo {
    std::string title;
    bool config;
  };

  template <typename T>
  static constexpr int64_t MaxOf() {
    return sizeof(T) == 8 ? INT64_MAX : static_cast<int64_t>(std::numeric_limits<T>::max());
  }
  Added AddFlag(Flag flag);
  Added AddInteger(std::string name, std::string help, int64_t value, int64_t min, int64_t max, std::function<void(int64_t)> set);
  Flag* Find(std::string_view name);
  std::string Render(bool config) const;

  std::string program_, summary_;
  std::vector<GroupInfo> groups_;
  std::vector<Flag> flags_;
};

// "1.5s" -> 1.5 s; "0" needs no unit. "64M" -> bytes.
Result<Duration> ParseDuration(std::string_view text);
Result<uint64_t> ParseBytes(std::string_view text);
std::string FormatDuration(Duration duration);
std::string FormatBytes(uint64_t bytes);

}  // namespace ray
