#include "ray/gcs_server/storage/sqlite_storage.h"

#include <sqlite3.h>

#include <utility>

#include "ray/gcs_server/storage/write_thread.h"
#include "ray/util/logging.h"

namespace ray::gcs {
namespace {

constexpr int64_t kApplicationId = 0x52617943;  // "RayC", in the file's header
constexpr int64_t kSchemaVersion = 1;           // grows with each change that older releases would misread

// SQLite's result as a Status; the file's name is part of the message.
Status StatusOf(int code, sqlite3* db, const std::string& path) {
  const std::string text = db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code);
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return Status::Unavailable("the GCS database " + path + " is in use by another process");
    case SQLITE_NOTADB: return Status::DataLoss(path + " is damaged or no GCS database (" + text + "); it was left as it is");
    case SQLITE_CORRUPT: return Status::DataLoss("the GCS database " + path + " is damaged (" + text + "); it was left as it is");
    case SQLITE_FULL: return Status::ResourceExhausted("no room on the disk of the GCS database " + path);
    default: return Status::FailedPrecondition("the GCS database " + path + ": " + text);
  }
}

struct Database {  // RAII around the connection and its two statements
  ~Database() {
    sqlite3_finalize(put);
    sqlite3_finalize(erase);
    sqlite3_close(db);
  }
  // `row`, if any, is called for each row of the result; with an error it ends.
  Status Run(const char* sql, const std::function<Status(sqlite3_stmt*)>& row = nullptr) {
    sqlite3_stmt* statement = nullptr;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, nullptr);
    Status status;
    while (code == SQLITE_OK || code == SQLITE_ROW) {
      code = sqlite3_step(statement);
      if (code != SQLITE_ROW || row == nullptr) continue;
      if (status = row(statement); !status.ok()) break;
    }
    if (status.ok() && code != SQLITE_DONE) status = StatusOf(code, db, path);
    sqlite3_finalize(statement);
    return status;
  }
  Result<int64_t> Number(const char* sql) {
    int64_t number = 0;
    RAY_RETURN_NOT_OK(Run(sql, [&number](sqlite3_stmt* row) {
      number = sqlite3_column_int64(row, 0);
      return Status::Ok();
    }));
    return number;
  }
  Status Prepare(const char* sql, sqlite3_stmt** statement) {
    const int code = sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, nullptr);
    return code == SQLITE_OK ? Status::Ok() : StatusOf(code, db, path);
  }
  Status Apply(const StorageOp& op) {
    sqlite3_stmt* statement = op.erase ? erase : put;
    std::string joined;
    std::string_view value;
    if (op.value.size() == 1) {
      value = op.value.front()->view();
    } else {
      for (const BufferPtr& piece : op.value) joined += piece->view();
      value = joined;
    }
    sqlite3_bind_text64(statement, 1, op.table.data(), op.table.size(), SQLITE_STATIC, SQLITE_UTF8);
    int code = sqlite3_bind_blob64(statement, 2, op.key.data(), op.key.size(), SQLITE_STATIC);
    // A null pointer would be NULL instead of an empty value.
    if (code == SQLITE_OK && !op.erase)
      code = sqlite3_bind_blob64(statement, 3, value.data() != nullptr ? value.data() : "", value.size(), SQLITE_STATIC);
    if (code == SQLITE_OK) code = sqlite3_step(statement);
    Status status = code == SQLITE_DONE ? Status::Ok() : StatusOf(code, db, path);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return status;
  }

  std::string path;
  sqlite3* db = nullptr;
  sqlite3_stmt* put = nullptr;
  sqlite3_stmt* erase = nullptr;
};

std::string TextOf(sqlite3_stmt* row, int column) {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(row, column));
  return bytes == nullptr ? std::string() : std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(row, column)));
}

// Makes the tables of an empty file. A crash before its end leaves an empty file again.
Status Create(Database* db) {
  RAY_RETURN_NOT_OK(db->Run("BEGIN EXCLUSIVE"));
  RAY_RETURN_NOT_OK(db->Run(("PRAGMA application_id=" + std::to_string(kApplicationId)).c_str()));
  RAY_RETURN_NOT_OK(db->Run("CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)"));
  RAY_RETURN_NOT_OK(db->Run(("INSERT INTO meta VALUES ('schema_version', " + std::to_string(kSchemaVersion) + ")").c_str()));
  RAY_RETURN_NOT_OK(db->Run("CREATE TABLE rows (tab TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (tab, key))"));
  return db->Run("COMMIT");
}

// Whether the file is one that this release can go on with. Reads only.
Status Check(Database* db) {
  RAY_ASSIGN_OR_RETURN(const int64_t application, db->Number("PRAGMA application_id"));
  if (application != kApplicationId) {
    return Status::FailedPrecondition(db->path + " is a database, but not one of a GCS; it was left as it is");
  }
  RAY_ASSIGN_OR_RETURN(const int64_t version, db->Number("SELECT value FROM meta WHERE name='schema_version'"));
  if (version > kSchemaVersion) {
    return Status::FailedPrecondition("the GCS database " + db->path + " has schema version " + std::to_string(version) +
                                      " of a newer release; this one knows versions up to " + std::to_string(kSchemaVersion) +
                                      ". It was left as it is");
  }
  if (version < 1) return Status::DataLoss("the GCS database " + db->path + " is damaged (no schema version); it was left as it is");
  std::string found;
  RAY_RETURN_NOT_OK(db->Run("PRAGMA quick_check(1)", [&found](sqlite3_stmt* row) {
    found = TextOf(row, 0);
    return Status::Ok();
  }));
  if (found == "ok") return Status::Ok();
  return Status::DataLoss("the GCS database " + db->path + " is damaged (" + found + "); it was left as it is");
}

}  // namespace

class SqliteStorage::Impl {
 public:
  Impl(SqliteOptions options, async::Loop* loop)
      : options_(std::move(options)), thread_(loop, [this](const WriteThread::Batches& batches) { return CommitAll(batches); }) {}

  Status Open() {
    db_.path = options_.path;
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;  // used by one thread at a time
    const int code = sqlite3_open_v2(options_.path.c_str(), &db_.db, flags, options_.vfs.empty() ? nullptr : options_.vfs.c_str());
    if (code != SQLITE_OK) return StatusOf(code, db_.db, options_.path);
    sqlite3_extended_result_codes(db_.db, 1);
    sqlite3_busy_timeout(db_.db, static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(options_.busy_timeout).count()));
    // Until the file has been accepted not even its log is merged into it.
    sqlite3_db_config(db_.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    // Before the first access: then the file is ours until the process ends, and no shared memory file is needed.
    RAY_RETURN_NOT_OK(db_.Run("PRAGMA locking_mode=EXCLUSIVE"));
    RAY_ASSIGN_OR_RETURN(const int64_t tables, db_.Number("SELECT count(*) FROM sqlite_master"));
    RAY_ASSIGN_OR_RETURN(const int64_t application, db_.Number("PRAGMA application_id"));
    const bool is_new = tables == 0 && application == 0;
    if (!is_new) RAY_RETURN_NOT_OK(Check(&db_));
    RAY_RETURN_NOT_OK(db_.Run("PRAGMA journal_mode=WAL"));
    RAY_RETURN_NOT_OK(db_.Run("PRAGMA synchronous=FULL"));
    RAY_RETURN_NOT_OK(db_.Run("PRAGMA journal_size_limit=16777216"));
    if (is_new) RAY_RETURN_NOT_OK(Create(&db_));
    sqlite3_db_config(db_.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, nullptr);
    RAY_RETURN_NOT_OK(db_.Prepare("INSERT INTO rows VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value=excluded.value", &db_.put));
    return db_.Prepare("DELETE FROM rows WHERE tab=?1 AND key=?2", &db_.erase);
  }

  Result<StorageContents> Load() {
    StorageContents contents;
    RAY_RETURN_NOT_OK(db_.Run("SELECT tab, key, value FROM rows", [&contents](sqlite3_stmt* row) {
      contents[TextOf(row, 0)][TextOf(row, 1)] = TextOf(row, 2);
      return Status::Ok();
    }));
    return contents;
  }

  void Write(std::vector<StorageOp> batch, std::function<void(Status)> done) { thread_.Write(std::move(batch), std::move(done)); }

 private:
  // Waits for room as long as there is none.
  Status CommitAll(const WriteThread::Batches& batches) {
    for (bool told = false;; told = true) {
      Status status = Commit(batches);
      if (status.code() != StatusCode::kResourceExhausted) {
        if (told && status.ok()) RAY_LOG(INFO) << "the disk of " << options_.path << " has room again";
        return status;
      }
      if (!told) RAY_LOG(ERROR) << status.message() << ": requests that change something wait until there is some";
      if (!thread_.Sleep(options_.full_retry)) return status;
    }
  }

  Status Commit(const WriteThread::Batches& batches) {
    Status status = db_.Run("BEGIN IMMEDIATE");
    for (const auto& batch : batches) {
      for (const StorageOp& op : batch) {
        if (status.ok()) status = db_.Apply(op);
      }
    }
    if (status.ok()) status = db_.Run("COMMIT");
    // Some failures have rolled back already.
    if (!status.ok() && sqlite3_get_autocommit(db_.db) == 0) (void)db_.Run("ROLLBACK");
    return status;
  }

  const SqliteOptions options_;
  Database db_;  // of the opening thread until the writing one starts, then of that one
  WriteThread thread_;
};

SqliteStorage::SqliteStorage(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SqliteStorage::~SqliteStorage() = default;

Result<std::unique_ptr<SqliteStorage>> SqliteStorage::Open(SqliteOptions options, async::Loop* loop) {
  auto impl = std::make_unique<Impl>(std::move(options), loop);
  RAY_RETURN_NOT_OK(impl->Open());
  return std::unique_ptr<SqliteStorage>(new SqliteStorage(std::move(impl)));
}

Result<StorageContents> SqliteStorage::Load() { return impl_->Load(); }

void SqliteStorage::Write(std::vector<StorageOp> batch, std::function<void(Status)> done) {
  impl_->Write(std::move(batch), std::move(done));
}

}  // namespace ray::gcs
