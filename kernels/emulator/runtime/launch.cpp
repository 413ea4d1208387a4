// A launch: what is checked before it, and the OS threads that share its blocks.
//
// The calling thread starts at once. Only when it has been at it for a while with blocks left does it wake helpers, so small grids
// cost no hand-over. Threads and their regions are kept.
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>

#include "worker.h"

namespace emurt {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto ALONE = std::chrono::microseconds(30);

class Pool {
public:
    static Pool& get() {
        static Pool* const one = new Pool;  // never destroyed: its threads run to the end of the process
        return *one;
    }

    void run(Job& job) {
        Worker* const worker = acquire();
        Call call{this, Clock::now(), false};
        work_on(*worker, job, between, &call);
        release(worker);
        if (!call.shared) return;
        std::unique_lock<std::mutex> lock(mutex_);
        jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
        finished_.wait(lock, [&] { return job.helpers == 0; });
    }

private:
    struct Call {
        Pool* pool;
        Clock::time_point start;
        bool shared;
    };

    static void between(Job& job, void* context) {
        Call& call = *static_cast<Call*>(context);
        if (call.shared || job.next.load(std::memory_order_relaxed) + 1 >= job.block_count || Clock::now() - call.start < ALONE) return;
        call.shared = true;
        call.pool->share(job);
    }

    static int threads_of(const Job& job) {
        const int machine = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
        return job.settings.os_threads > 0 ? std::min(job.settings.os_threads, 64) : machine;
    }

    void share(Job& job) {
        const int helpers = threads_of(job) - 1;
        std::lock_guard<std::mutex> lock(mutex_);
        jobs_.push_back(&job);
        if (helpers <= 0) return;
        while (helper_count_ < helpers) start_helper();
        work_.notify_all();
    }

    // Helpers take no signals but their own faults: the others are for the process that loaded us.
    void start_helper() {
        sigset_t all, before;
        sigfillset(&all);
        for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&all, fault);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        std::thread([this] { help(); }).detach();
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        ++helper_count_;
    }

    void help() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            Job* job = nullptr;
            for (Job* j : jobs_)
                if (j->helpers + 1 < threads_of(*j) && j->next.load() < j->block_count && !j->cancelled) job = j;
            if (job == nullptr) {
                work_.wait(lock);
                continue;
            }
            ++job->helpers;
            lock.unlock();
            Worker* const worker = acquire();
            work_on(*worker, *job, nullptr, nullptr);
            release(worker);
            lock.lock();
            if (--job->helpers == 0) finished_.notify_all();
        }
    }

    Worker* acquire() {
        {
            std::lock_guard<std::mutex> lock(workers_mutex_);
            if (!idle_.empty()) {
                Worker* const worker = idle_.back();
                idle_.pop_back();
                return worker;
            }
        }
        return new_worker();
    }
    void release(Worker* worker) {
        std::lock_guard<std::mutex> lock(workers_mutex_);
        idle_.push_back(worker);
    }

    std::mutex mutex_;
    std::condition_variable work_, finished_;
    std::vector<Job*> jobs_;
    int helper_count_ = 0;
    std::mutex workers_mutex_;
    std::vector<Worker*> idle_;
};

// What would harm the emulator itself, and arguments that cannot be right.
void check_launch(Job& job) {
    const emu::Launch& launch = *job.launch;
    const auto refuse = [&](std::string what) {
        job.reports.push_back({Finding::Arguments, launch.kernel->name, "", 0, {}, {}, std::move(what)});
    };
    uint64_t threads = 1, blocks = 1;
    for (int i = 0; i < 3; ++i) {
        threads *= launch.block[i];
        blocks *= launch.grid[i];
    }
    if (blocks == 0 || threads == 0) refuse("an empty grid or block");
    if (threads > BLOCK_MAX_THREADS) refuse(std::to_string(threads) + " threads a block");
    if (launch.kernel->max_threads > 0 && threads > uint64_t(launch.kernel->max_threads))
        refuse(std::to_string(threads) + " threads a block, KERNEL allows " + std::to_string(launch.kernel->max_threads));
    if (launch.dynamic_shared > SHARED_CAPACITY) refuse(std::to_string(launch.dynamic_shared) + " bytes of dynamic shared memory");
    job.block_count = blocks;
    if ((job.settings.checks & CHECK_ARGUMENTS) == 0) return;
    for (int i = 0; i < launch.kernel->parameter_count; ++i) {
        if (launch.kernel->parameters[i].kind == emu::ParameterKind::value) continue;
        const void* p;
        std::memcpy(&p, launch.arguments[i], sizeof p);
        uintptr_t low, high;
        if (p != nullptr && !find_range(p, low, high)) refuse("pointer argument " + std::to_string(i) + " points into no live allocation");
    }
}

}  // namespace

bool add_report(Job& job, Report report) {
    std::lock_guard<std::mutex> lock(job.mutex);
    for (const Report& r : job.reports)
        if (r.finding == report.finding && r.line == report.line && r.file == report.file) return true;
    job.reports.push_back(std::move(report));
    return static_cast<int>(job.reports.size()) < job.settings.max_reports;
}

std::vector<Report> run(const emu::Launch& launch, const Settings& settings) {
    Job job;
    job.launch = &launch;
    job.settings = settings;
    check_launch(job);
    if (!job.reports.empty()) return std::move(job.reports);
    if (settings.block_order == Order::Random && job.block_count > 1) {
        job.stride = (settings.seed * 0x9e3779b97f4a7c15u >> 16) % job.block_count | 1;
        while (std::gcd(job.stride, job.block_count) != 1) job.stride += 2;
        job.offset = settings.seed * 0xd1342543de82ef95u % job.block_count;
    }
    Pool::get().run(job);
    return std::move(job.reports);
}

}  // namespace emurt

void emu::run_grid(const Launch& launch, Outcome& outcome) {
    using emurt::Finding;
    outcome = {};
    for (const emurt::Report& report : emurt::run(launch, emurt::settings())) {
        if (!outcome.report.empty()) outcome.report += '\n';
        outcome.report += report.text();
        if (outcome.fault != Fault::none) continue;
        switch (report.finding) {
        case Finding::SharedBounds:
        case Finding::GlobalBounds: outcome.fault = Fault::illegal_address; break;
        case Finding::SharedAlignment:
        case Finding::GlobalAlignment: outcome.fault = Fault::misaligned_address; break;
        default: outcome.fault = Fault::launch_failed;
        }
    }
}
