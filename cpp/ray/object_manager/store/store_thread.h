// StoreThread: the StoreService of a raylet process, on a thread and a socket of its own, so that large puts never hold up leases, and the disk that it spills
// to. Owned by the raylet's main object.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ray/async/loop.h"
#include "ray/object_manager/store/store_service.h"
#include "ray/rpc/local/local_carrier.h"
#include "ray/util/status.h"

namespace ray::object_manager {

struct StoreThreadConfig {
  StoreConfig store;
  std::string sockets_dir;
  std::string socket_name = "store.sock";
  // Where objects go when memory is short: see LocalDiskConfig. None: nowhere.
  std::vector<std::string> spill_directories;
  // If there are any, objects go there instead, through this helper (ExternalStorageConfig); the directories are for disk-backed memory only.
  std::vector<std::string> spill_uris;
  std::vector<std::string> spill_helper;
  double max_disk_use = 0.95;
};

class StoreThread {
 public:
  // `clock` must outlive it.
  static Result<std::unique_ptr<StoreThread>> Make(const StoreThreadConfig& config, const Clock* clock);
  // REQUIRES: stopped, if it was started.
  ~StoreThread();
  StoreThread(const StoreThread&) = delete;
  StoreThread& operator=(const StoreThread&) = delete;

  // Lives as long as this.
  StoreService* store() const { return store_.get(); }
  // Listens; clients may connect once the call has returned.
  Status Start();
  // Closes all connections and ends the thread and the service. Idempotent. Not from the store's own thread.
  void Stop();

 private:
  explicit StoreThread(std::string socket_name) : socket_name_(std::move(socket_name)) {}

  const std::string socket_name_;
  // Destroyed in reverse.
  std::unique_ptr<async::EpollLoop> loop_;
  std::unique_ptr<StoreService> store_;
  std::unique_ptr<rpc::LocalCarrier> carrier_;
  bool started_ = false, stopped_ = false;
};

}  // namespace ray::object_manager
