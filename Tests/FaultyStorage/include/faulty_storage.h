#ifndef FAULTY_STORAGE_H
#define FAULTY_STORAGE_H

/// An SQLite VFS over the default one whose writes and syncs fail on demand. For one thread's tests
/// in a process of their own.

enum faulty_operation { FAULTY_WRITE = 0, FAULTY_SYNC = 1 };

/// Makes it the default VFS of the process.
int faulty_storage_install(void);

/// Lets the n-th operation of a kind from now fail (1 is the next), and all after it if `for_good`.
void faulty_storage_fail(enum faulty_operation operation, int n, int for_good);

/// Ends all faults.
void faulty_storage_heal(void);

/// Operations of a kind since the last `faulty_storage_fail` or `faulty_storage_heal`.
int faulty_storage_count(enum faulty_operation operation);

#endif
