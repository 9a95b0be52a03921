# What ray/bindings/core.h declares. Nothing here throws; what may block is called without the GIL.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libcpp cimport bool
from libcpp.map cimport map
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport pair
from libcpp.vector cimport vector

ctypedef pair[const char*, size_t] Span
ctypedef vector[pair[string, vector[pair[int32_t, double]]]] Instances

cdef extern from "ray/util/status.h" namespace "ray" nogil:
    cdef enum class StatusCode(uint8_t):
        kOk
        kCancelled
        kInvalidArgument
        kDeadlineExceeded
        kNotFound
        kAlreadyExists
        kResourceExhausted
        kUnavailable

    cdef cppclass Status:
        bool ok() const
        StatusCode code() const
        int32_t cause() const
        const string& message() const

cdef extern from "ray/common/buffer.h" namespace "ray" nogil:
    cdef cppclass Buffer:
        const uint8_t* data() const
        size_t size() const

    ctypedef shared_ptr[const Buffer] BufferPtr

cdef extern from "ray/common/address.h" namespace "ray" nogil:
    cdef cppclass ObjectId:  # nil when fresh
        const uint8_t* data() const
        uint8_t* mutable_data()
        bool IsNil() const

    cdef cppclass ActorId:
        const uint8_t* data() const
        uint8_t* mutable_data()

    cdef cppclass TaskId:
        const uint8_t* data() const

    cdef cppclass NodeId:
        const uint8_t* data() const
        uint8_t* mutable_data()

    cdef cppclass WorkerId:
        const uint8_t* data() const
        uint8_t* mutable_data()

    cdef cppclass Address:  # nil when fresh
        Address()
        Address(const Address&)
        NodeId node_id
        WorkerId worker_id
        bool IsNil() const
        bool operator==(const Address&) const

cdef extern from "ray/bindings/core.h" namespace "ray::bindings" nogil:
    cdef cppclass CoreOptions:
        bool is_driver, is_observer
        string session_dir, worker_id
        uint64_t startup_token
        string job_id, ray_namespace, entrypoint, job_config_json, log_file, log_level, python_version, rpc_faults
        uint64_t rpc_faults_seed
        int64_t max_inline_bytes, lineage_cap_bytes, oom_retries, oom_backoff_ms, gcs_timeout_ms, max_ended_tasks

    cdef cppclass CoreInfo:
        string worker_id, node_id, job_id, node_ip, session_dir, session_name, gcs_address, config_json, address
        bool job_known
        string job_namespace, job_config_json

    cdef cppclass Ref:
        ObjectId id
        Address owner

    cdef cppclass ValueIn:
        string metadata
        const char* data
        size_t size
        vector[Span] buffers
        vector[Ref] nested

    cdef cppclass ValueOut:
        string metadata
        BufferPtr blob
        Span pickle
        vector[Span] buffers

    cdef cppclass ErrorFields:
        int32_t error_type
        string message, actor_id, cause, class_name, actor_name, ray_namespace, owner_address, task_id, task_name, node_ip, argument_of
        bool actor_init_failed, never_ran, preempted
        int64_t pid
        double timeout_s

    Status ParseError(const ValueOut& value, ErrorFields* out)
    Status ParsePythonBlob(ValueOut* value)
    bool PrepareProcessTitle()
    void SetProcessTitle(const char* title, size_t size)

    cdef cppclass TemplateOptions:
        int32_t type
        string function_id, function_name, method_name, name, runtime_env, concurrency_group
        map[string, double] resources
        int32_t num_returns, max_retries
        bool retry_exceptions
        string retry_exception_allowlist
        int32_t max_calls, strategy_kind
        string strategy_node_id, strategy_placement_group_id
        bool strategy_soft, strategy_capture_child_tasks, strategy_spill_on_unavailable, strategy_fail_on_unavailable
        int32_t strategy_bundle_index
        vector[map[string, string]] strategy_selectors
        map[string, string] strategy_preferred
        int32_t priority
        int64_t generator_backpressure
        double timeout_s
        bool out_of_order, retry_timeouts, omit_task_events
        int32_t objects_per_yield
        int64_t shared_backpressure

    cdef cppclass ActorOptions:
        string name, ray_namespace, class_name, method_table
        bool detached, is_async, allow_out_of_order
        int32_t max_restarts, max_task_retries, max_concurrency, max_pending_calls
        vector[pair[string, int32_t]] concurrency_groups
        map[string, double] placement_resources

    cdef cppclass ActorFields:
        string actor_id, class_name, name, ray_namespace, method_table, function_id, job_id, node_id, owner, repr_name, node_ip
        int32_t state
        int64_t pid
        int32_t num_restarts, max_task_retries, max_pending_calls, max_concurrency
        bool detached, is_async, allow_out_of_order

    cdef cppclass ChaosTargetFields:
        string lease_id, worker_id, running, actor_id, class_name, actor_name, ray_namespace
        int64_t pid, held_ms
        bool actor_alive

    cdef cppclass NodeFields:
        string node_id, node_name, ip, hostname, raylet_socket, store_socket, death_reason, drain_reason
        bool alive, is_head, driver_only, draining
        int32_t death_kind
        int64_t drain_deadline_ms, start_time_ms, end_time_ms
        map[string, double] total, available
        map[string, string] labels
        int32_t port

    cdef cppclass WaitQuestion:
        string address, id
        int32_t kind
        bool of_node

    cdef cppclass TaskRowFields:
        bool owned, in_wait
        int32_t type, error_type
        int64_t submitted_at_ms, started_at_ms, ended_at_ms
        string function_name, parent_task_id, error_message, runtime_env, placement_group_id
        vector[map[string, string]] label_selectors

    cdef cppclass TaskTotalsFields:
        uint64_t forgotten_finished, forgotten_failed, left_out
        uint32_t silent

    cdef cppclass WaitFactFields:
        int32_t kind, state
        string id, name, detail, node_id, worker_id, owner
        int64_t age_ms, ahead, pid
        uint32_t attempt, more
        map[string, double] need, available, total
        vector[WaitQuestion] next
        uint32_t local, submitted, contained, borrowers
        int64_t size
        bool owned, in_store, by_driver
        string site
        bool has_row, has_totals
        TaskRowFields row
        TaskTotalsFields totals

    cdef cppclass WaitAnswer:
        Status status
        vector[WaitFactFields] facts

    cdef cppclass ObjectPlace:
        vector[string] node_ids
        int64_t size
        bool spilled

    cdef cppclass BundleFields:
        map[string, double] resources
        map[string, string] label_selector
        string node_id

    cdef cppclass PlacementGroupFields:
        string id, name, ray_namespace, job_id, creator_actor_id, soft_target_node_id, topology_label
        int32_t strategy, state
        bool detached, infeasible
        vector[BundleFields] bundles
        int64_t created_at_ms, placed_at_ms, highest_retry_delay_ms
        uint32_t attempts

    cdef cppclass JobFields:
        string job_id, ray_namespace, entrypoint, config_json
        int64_t driver_pid, start_time_ms, end_time_ms

    cdef cppclass TaskIn:
        int32_t kind
        uint64_t token
        uint64_t template_key
        TaskId task_id
        string exit_reason
        uint32_t attempt
        bool has_args
        ValueOut args
        vector[ValueOut] ref_values
        vector[Ref] refs
        uint32_t n_returns
        bool is_actor_creation
        bool has_instances
        bool unprepared

    cdef cppclass TaskDetails:
        string actor_id, job_id, ray_namespace, caller_address
        ActorOptions actor
        Instances instances
        bool was_restarted

    cdef cppclass TaskOut:
        vector[ValueIn] returns
        bool is_application_error, is_retryable_error, cancelled, worker_exiting, more_follows
        int64_t generator_items
        string repr_name, error_text
        uint64_t run_ns

    cdef cppclass Event:
        int32_t kind
        string name, text, node_ip, message_kind
        int64_t pid
        bool is_stderr
        ValueOut error

    cdef cppclass CompletionQueue:
        int fd() const
        void WatchObject(const Ref& ref, uint64_t token)
        void WatchGenerator(const ObjectId& generator_id, uint64_t token)
        void Unwatch(uint64_t token)
        vector[uint64_t] Drain()
        vector[uint64_t] WaitDrain(int64_t timeout_ms)
        void Close()

    cdef enum class GetStatus(int32_t):
        kReady
        kTimeout
        kInterrupted

    cdef cppclass Core:
        @staticmethod
        Status Start(const CoreOptions& options, unique_ptr[Core]* out)
        void Shutdown(const string& reason)
        const CoreInfo& info() const
        Status Put(const ValueIn& value, ObjectId* object_id)
        GetStatus Get(const vector[Ref]& refs, int64_t timeout_ms, vector[ValueOut]* out)
        bool TryGet(const Ref& ref, ValueOut* out)
        bool IsReady(const ObjectId& object_id)
        GetStatus Wait(const vector[Ref]& refs, int32_t num_returns, int64_t timeout_ms, bool fetch_local, vector[bool]* ready)
        Status NewCompletionQueue(unique_ptr[CompletionQueue]* out)
        int PollFd()
        void Poll()
        void AddLocalRef(const ObjectId& object_id)
        void AddBorrowedRef(const Ref& ref, const ObjectId& outer_id, uint64_t task_token)
        void RemoveLocalRef(const ObjectId& object_id)
        Address OwnerOf(const ObjectId& object_id)
        Status GetLocations(const vector[Ref]& refs, int64_t timeout_ms, bool only_known, vector[ObjectPlace]* out)
        void NoteCreationSite(const ObjectId& id, const string& site)
        void Explain(const vector[WaitQuestion]& questions, int64_t timeout_ms, vector[WaitAnswer]* out)
        Status RegisterTemplate(const TemplateOptions& options, uint64_t* handle)
        void ReleaseTemplate(uint64_t handle)
        Status SubmitTask(uint64_t handle, const ValueIn& args, const vector[Ref]& refs, vector[ObjectId]* return_ids)
        Status CreateActor(uint64_t handle, const ActorOptions& options, const ValueIn& args, const vector[Ref]& refs, string* actor_id)
        Status SubmitActorTask(const ActorId& actor_id, uint64_t handle, const ValueIn& args, const vector[Ref]& refs,
                               vector[ObjectId]* return_ids)
        void RegisterActorHandle(const string& actor_id, const string& owner, const ActorOptions& options)
        Status KillActor(const string& actor_id, bool no_restart)
        Status CancelTask(const Ref& ref, bool force, bool recursive)
        Status GetNamedActor(const string& name, const string& ray_namespace, ActorFields* out)
        Status ListActors(bool named_only, bool all_namespaces, const string& ray_namespace, vector[ActorFields]* out)
        Status CreatePlacementGroup(const PlacementGroupFields& group, string* id)
        void RemovePlacementGroup(const string& id)
        GetStatus WaitPlacementGroup(const string& id, int64_t timeout_ms, bool* placed)
        Status PlacementGroupReady(const string& id, const ValueIn& value, ObjectId* object_id)
        Status GetPlacementGroup(const string& id, const string& name, const string& ray_namespace, PlacementGroupFields* out)
        Status ListPlacementGroups(vector[PlacementGroupFields]* out)
        GetStatus NextGeneratorItem(const ObjectId& generator_id, int64_t timeout_ms, ObjectId* object_id)
        void ReleaseGenerator(const ObjectId& generator_id)
        bool WaitForTask(int64_t timeout_ms)
        bool TryNextTask(TaskIn* out)
        bool PrepareTask(TaskIn* out)
        Status AlsoWaitFor(int fd)
        bool TakeFdEvent()
        void DetailsOf(const TaskIn& task, TaskDetails* out)
        bool TemplateOf(uint64_t token, TemplateOptions* out)
        Status FinishTask(const TaskIn& task, const TaskOut& out)
        Status ReportGeneratorItem(uint64_t token, int64_t index, const ValueIn& value, bool* stop)
        bool IsCancelled(const TaskIn& task)
        void SetInterruptThread()
        void AnnounceExit(const string& reason, bool intended)
        void SetCurrentTask(const TaskIn* task)
        Status KvGet(const string& ns, const string& key, bool* found, string* value)
        Status KvPut(const string& ns, const string& key, const string& value, bool overwrite, bool of_job, bool* added)
        Status KvDel(const string& ns, const string& key, bool by_prefix, int64_t* deleted)
        Status KvExists(const string& ns, const string& key, bool* exists)
        Status KvKeys(const string& ns, const string& prefix, vector[string]* keys)
        Status ListNodes(vector[NodeFields]* out)
        Status ListJobs(vector[JobFields]* out)
        Status NodeStats(const string& node_id, int64_t timeout_ms, string* json)
        Status ListChaosTargets(const string& node_id, vector[ChaosTargetFields]* out)
        Status KillLeasedWorker(const string& node_id, const string& lease_id, const string& running, const string& reason, bool* killed)
        Status KillNode(const string& node_id, const string& reason)
        bool NextEvent(int64_t timeout_ms, Event* out)
