/* Stands for what the C++ library lacks without threads. */
#pragma once
#include <mutex>
namespace std {
struct recursive_mutex {
    void lock() {}
    void unlock() {}
    bool try_lock() { return true; }
};
}
