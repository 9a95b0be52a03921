#include "ray/object_manager/store/store_thread.h"

#include <future>
#include <utility>

#include "ray/object_manager/spill/external_storage.h"
#include "ray/object_manager/spill/local_disk.h"
#include "ray/util/check.h"

namespace ray::object_manager {

Result<std::unique_ptr<StoreThread>> StoreThread::Make(const StoreThreadConfig& config, const Clock* clock) {
  std::unique_ptr<StoreThread> thread(new StoreThread(config.socket_name));
  RAY_ASSIGN_OR_RETURN(thread->loop_, async::EpollLoop::Make({.name = "store"}));
  std::unique_ptr<SpillStorage> disk;
  if (!config.spill_directories.empty()) {
    const LocalDiskConfig local{.directories = config.spill_directories, .node = config.store.node, .max_disk_use = config.max_disk_use};
    if (config.spill_uris.empty()) {
      disk = std::make_unique<LocalDisk>(local);
    } else {
      disk = std::make_unique<ExternalStorage>(
          ExternalStorageConfig{.uris = config.spill_uris, .node = config.store.node, .helper = config.spill_helper, .segments = local});
    }
  }
  RAY_ASSIGN_OR_RETURN(thread->store_, StoreService::Make(config.store, thread->loop_.get(), clock, std::move(disk)));
  RAY_ASSIGN_OR_RETURN(thread->carrier_,
                       rpc::LocalCarrier::Make(thread->loop_.get(), thread->store_->dispatcher(), {.sockets_dir = config.sockets_dir}));
  return thread;
}

StoreThread::~StoreThread() { RAY_CHECK(!started_ || stopped_); }

Status StoreThread::Start() {
  RAY_RETURN_NOT_OK(loop_->Start());
  started_ = true;
  store_->Start();
  return carrier_->Listen(socket_name_, [this](const rpc::ConnectionPtr& connection) { store_->OnConnection(connection); });
}

void StoreThread::Stop() {
  if (!started_ || std::exchange(stopped_, true)) return;
  carrier_->Shutdown();
  // The sockets are closed on the loop: it must get there before it ends, or clients would wait for answers that never come.
  auto closed = std::make_shared<std::promise<void>>();
  loop_->Post("store.stop", [closed] { closed->set_value(); });
  closed->get_future().wait();
  loop_->Stop();
  store_->Stop();
}

}  // namespace ray::object_manager
