// Threads for callers that have none of their own to lend. They are started when first needed, and wait between calls.
#include <atomic>
#include <cfenv>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#include <unistd.h>

#include "indrnn_call.h"

namespace {

struct Job {
    Task task;
    void* argument;
    size_t count;
    std::atomic<size_t> next{0};
    std::fenv_t modes{};  // the caller's: a thread that flushes denormals to zero, or rounds otherwise, would give other bits than the rest

    Job(Task task, void* argument, size_t count) : task(task), argument(argument), count(count) { std::fegetenv(&modes); }

    void work() {
        for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(argument, i);
    }
};

class Pool {
  public:
    const pid_t process = getpid();

    void run(Job& job, size_t helpers) {
        std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
        if (!mine) return job.work();  // another thread has the helpers: this one works alone
        {
            std::lock_guard<std::mutex> hold(lock_);
            try {
                for (; started_ < helpers; ++started_) std::thread(&Pool::help, this).detach();
            } catch (const std::system_error&) {  // no more threads to be had: fewer will do
            }
            job_ = &job;
            wanted_ = helpers < started_ ? helpers : started_;
        }
        wake_.notify_all();
        job.work();
        std::unique_lock<std::mutex> hold(lock_);
        wanted_ = 0;  // who has not begun has nothing left to do
        done_.wait(hold, [this] { return active_ == 0; });
    }

  private:
    void help() {
        std::unique_lock<std::mutex> hold(lock_);
        for (;;) {
            wake_.wait(hold, [this] { return wanted_ > 0; });
            --wanted_;
            ++active_;
            Job& job = *job_;
            hold.unlock();
            std::fesetenv(&job.modes);
            job.work();
            hold.lock();
            if (--active_ == 0) done_.notify_one();
        }
    }

    std::mutex busy_, lock_;
    std::condition_variable wake_, done_;
    Job* job_ = nullptr;
    size_t started_ = 0, wanted_ = 0, active_ = 0;
};

// Never deleted: its threads may outlive every other static object. A forked child has none of them and begins anew.
Pool& pool() {
    static std::atomic<Pool*> current{nullptr};
    Pool* seen = current.load();
    while (!seen || seen->process != getpid()) {
        Pool* fresh = new Pool;
        if (current.compare_exchange_strong(seen, fresh)) return *fresh;
        delete fresh;
    }
    return *seen;
}

}  // namespace

// A ParallelFor; context is the number of threads, the caller's included.
extern "C" __attribute__((visibility("default"))) void indrnn_pool(void* context, size_t count, Task task, void* argument) {
    const size_t threads = reinterpret_cast<uintptr_t>(context);
    Job job(task, argument, count);
    if (threads < 2 || count < 2) return job.work();
    pool().run(job, (threads < count ? threads : count) - 1);
}
