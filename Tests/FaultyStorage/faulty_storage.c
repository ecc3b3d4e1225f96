#include "faulty_storage.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>

typedef struct {
  sqlite3_file base;
  // The real file follows this struct.
} faulty_file;

static sqlite3_vfs *real_vfs;
static sqlite3_vfs faulty_vfs;
static atomic_int counts[2];
static atomic_int failing_at[2];
static atomic_int for_good[2];

static sqlite3_file *real_file(sqlite3_file *file) {
  return (sqlite3_file *)((faulty_file *)file + 1);
}

static int fails(enum faulty_operation operation) {
  int count = atomic_fetch_add(&counts[operation], 1) + 1;
  int n = atomic_load(&failing_at[operation]);
  return n > 0 && (count == n || (count > n && atomic_load(&for_good[operation])));
}

void faulty_storage_heal(void) {
  for (int i = 0; i < 2; i++) {
    atomic_store(&counts[i], 0);
    atomic_store(&failing_at[i], 0);
    atomic_store(&for_good[i], 0);
  }
}

void faulty_storage_fail(enum faulty_operation operation, int n, int good) {
  faulty_storage_heal();
  atomic_store(&for_good[operation], good);
  atomic_store(&failing_at[operation], n);
}

int faulty_storage_count(enum faulty_operation operation) {
  return atomic_load(&counts[operation]);
}

static int file_close(sqlite3_file *f) { return real_file(f)->pMethods->xClose(real_file(f)); }
static int file_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at) {
  return real_file(f)->pMethods->xRead(real_file(f), to, n, at);
}
static int file_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at) {
  if (fails(FAULTY_WRITE)) {
    // Half of it arrives, as when a disk fills up.
    real_file(f)->pMethods->xWrite(real_file(f), from, n / 2, at);
    return SQLITE_IOERR_WRITE;
  }
  return real_file(f)->pMethods->xWrite(real_file(f), from, n, at);
}
static int file_truncate(sqlite3_file *f, sqlite3_int64 size) {
  return real_file(f)->pMethods->xTruncate(real_file(f), size);
}
static int file_sync(sqlite3_file *f, int flags) {
  if (fails(FAULTY_SYNC)) return SQLITE_IOERR_FSYNC;
  return real_file(f)->pMethods->xSync(real_file(f), flags);
}
static int file_size(sqlite3_file *f, sqlite3_int64 *size) {
  return real_file(f)->pMethods->xFileSize(real_file(f), size);
}
static int file_lock(sqlite3_file *f, int level) {
  return real_file(f)->pMethods->xLock(real_file(f), level);
}
static int file_unlock(sqlite3_file *f, int level) {
  return real_file(f)->pMethods->xUnlock(real_file(f), level);
}
static int file_reserved(sqlite3_file *f, int *out) {
  return real_file(f)->pMethods->xCheckReservedLock(real_file(f), out);
}
static int file_control(sqlite3_file *f, int op, void *argument) {
  return real_file(f)->pMethods->xFileControl(real_file(f), op, argument);
}
static int sector_size(sqlite3_file *f) {
  return real_file(f)->pMethods->xSectorSize(real_file(f));
}
static int characteristics(sqlite3_file *f) {
  return real_file(f)->pMethods->xDeviceCharacteristics(real_file(f));
}
static int shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **to) {
  return real_file(f)->pMethods->xShmMap(real_file(f), page, size, extend, to);
}
static int shm_lock(sqlite3_file *f, int offset, int n, int flags) {
  return real_file(f)->pMethods->xShmLock(real_file(f), offset, n, flags);
}
static void shm_barrier(sqlite3_file *f) { real_file(f)->pMethods->xShmBarrier(real_file(f)); }
static int shm_unmap(sqlite3_file *f, int delete) {
  return real_file(f)->pMethods->xShmUnmap(real_file(f), delete);
}

// Version 2: without memory-mapped pages, whose writes would not be seen here.
static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = characteristics,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

static int vfs_open(
    sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags) {
  (void)vfs;
  int result = real_vfs->xOpen(real_vfs, name, real_file(file), flags, out_flags);
  file->pMethods = real_file(file)->pMethods ? &methods : 0;
  return result;
}

int faulty_storage_install(void) {
  real_vfs = sqlite3_vfs_find(0);
  if (!real_vfs) return SQLITE_ERROR;
  memcpy(&faulty_vfs, real_vfs, sizeof faulty_vfs);
  faulty_vfs.zName = "faulty";
  faulty_vfs.szOsFile = (int)sizeof(faulty_file) + real_vfs->szOsFile;
  faulty_vfs.xOpen = vfs_open;
  return sqlite3_vfs_register(&faulty_vfs, 1);
}
