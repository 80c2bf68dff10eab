/* Lets the n-th write below a folder fail, or kills the process there. Preloaded (LD_PRELOAD), so that it reaches
 * every library that calls libc: Python, Arrow, safetensors, ONNX Runtime, torch. What it does not reach: direct
 * system calls, stores into mapped memory, and libc's own buffered streams (fopen is counted when it opens a file).
 *
 *   fault_watch(root)       operations below this folder count
 *   fault_arm(mode, n)      the n-th of those that the mode is of fails; 0 only counts
 *   fault_count(mode)       how many there were since then that a mode is of
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, RENAME = 8, MKDIR = 16 };
enum { FULL, BROKEN, FORBIDDEN, KILLED, MODES };
/* A full disk stays full; a broken one fails once; permissions are asked for names only; a kill comes anywhere. */
static const int kinds[MODES] = {OPEN | WRITE | MKDIR, WRITE | SYNC, OPEN | RENAME | MKDIR,
                                 OPEN | WRITE | SYNC | RENAME | MKDIR};
static const int errors[MODES] = {ENOSPC, EIO, EACCES, 0};

#define MOST_FILES 4096
static char root[PATH_MAX];
static size_t root_length;
static int mode, failing_at;
static int counted[MODES];
static char watched[MOST_FILES];

#define REAL(name)                                          \
  ({                                                        \
    if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name); \
    real_##name;                                            \
  })

void fault_watch(const char *path) {
  snprintf(root, sizeof root, "%s", path);
  root_length = strlen(root);
}

void fault_arm(int new_mode, int n) {
  mode = new_mode;
  failing_at = n;
  memset(counted, 0, sizeof counted);
}

int fault_count(int of_mode) { return counted[of_mode]; }

/* Whether this operation fails. */
static int fails(int kind) {
  for (int each = 0; each < MODES; each++) counted[each] += !!(kinds[each] & kind);
  if (!(kinds[mode] & kind) || !failing_at) return 0;
  if (counted[mode] < failing_at || (counted[mode] > failing_at && mode != FULL)) return 0;
  if (mode == KILLED) {
    if (kind == WRITE) return 1; /* in its middle */
    kill(getpid(), SIGKILL);
  }
  errno = errors[mode];
  return 1;
}

static int below(int folder, const char *path) {
  char whole[2 * PATH_MAX], start[PATH_MAX];
  if (!root_length || !path) return 0;
  if (path[0] == '/') return !strncmp(path, root, root_length);
  if (folder == AT_FDCWD) {
    if (!getcwd(start, sizeof start)) return 0;
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, start, sizeof start - 1);
    if (length < 0) return 0;
    start[length] = 0;
  }
  snprintf(whole, sizeof whole, "%s/%s", start, path);
  return !strncmp(whole, root, root_length);
}

static int is_watched(int fd) { return fd >= 0 && fd < MOST_FILES && watched[fd]; }

static int opened(int fd, int here) {
  if (fd >= 0 && fd < MOST_FILES) watched[fd] = here;
  return fd;
}

#define OPENER(name, parameters, arguments, folder, path, flags)                  \
  int name parameters {                                                           \
    static int(*real_##name) parameters;                                          \
    va_list more;                                                                 \
    va_start(more, flags);                                                        \
    mode_t permissions = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                                 \
    int here = below(folder, path);                                               \
    if (here && flags & (O_WRONLY | O_RDWR | O_CREAT) && fails(OPEN)) return -1;  \
    return opened(REAL(name) arguments, here);                                    \
  }

OPENER(open, (const char *path, int flags, ...), (path, flags, permissions), AT_FDCWD, path, flags)
OPENER(open64, (const char *path, int flags, ...), (path, flags, permissions), AT_FDCWD, path, flags)
OPENER(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, permissions), folder, path, flags)
OPENER(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, permissions), folder, path,
       flags)

int creat(const char *path, mode_t permissions) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, permissions); }
int creat64(const char *path, mode_t permissions) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, permissions); }

#define STREAM(name)                                                                 \
  FILE *name(const char *path, const char *how) {                                    \
    static FILE *(*real_##name)(const char *, const char *);                         \
    int here = below(AT_FDCWD, path);                                                \
    if (here && strpbrk(how, "wa+") && fails(OPEN)) return NULL;                     \
    FILE *file = REAL(name)(path, how);                                              \
    if (file) opened(fileno(file), here);                                            \
    return file;                                                                     \
  }

STREAM(fopen)
STREAM(fopen64)

int close(int fd) {
  static int (*real_close)(int);
  opened(fd, 0);
  return REAL(close)(fd);
}

#define WRITER(name, parameters, arguments, half)           \
  ssize_t name parameters {                                 \
    static ssize_t(*real_##name) parameters;                \
    if (is_watched(fd) && fails(WRITE)) {                   \
      if (mode != KILLED) return -1;                        \
      ssize_t done = REAL(name) half;                       \
      (void)done;                                           \
      kill(getpid(), SIGKILL);                              \
    }                                                       \
    return REAL(name) arguments;                            \
  }

WRITER(write, (int fd, const void *bytes, size_t count), (fd, bytes, count), (fd, bytes, count / 2))
WRITER(pwrite, (int fd, const void *bytes, size_t count, off_t at), (fd, bytes, count, at),
       (fd, bytes, count / 2, at))
WRITER(pwrite64, (int fd, const void *bytes, size_t count, off64_t at), (fd, bytes, count, at),
       (fd, bytes, count / 2, at))
WRITER(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), (fd, parts, count / 2))
WRITER(sendfile, (int fd, int from, off_t *at, size_t count), (fd, from, at, count), (fd, from, at, count / 2))
WRITER(sendfile64, (int fd, int from, off64_t *at, size_t count), (fd, from, at, count), (fd, from, at, count / 2))

ssize_t copy_file_range(int from, off64_t *start, int fd, off64_t *at, size_t count, unsigned flags) {
  static ssize_t (*real_copy_file_range)(int, off64_t *, int, off64_t *, size_t, unsigned);
  if (is_watched(fd) && fails(WRITE)) {
    if (mode != KILLED) return -1;
    ssize_t done = REAL(copy_file_range)(from, start, fd, at, count / 2, flags);
    (void)done;
    kill(getpid(), SIGKILL);
  }
  return REAL(copy_file_range)(from, start, fd, at, count, flags);
}

#define CALL(kind, here, name, parameters, arguments)      \
  int name parameters {                                    \
    static int(*real_##name) parameters;                   \
    if (here && fails(kind)) return -1;                    \
    return REAL(name) arguments;                           \
  }

CALL(SYNC, is_watched(fd), fsync, (int fd), (fd))
CALL(SYNC, is_watched(fd), fdatasync, (int fd), (fd))
CALL(RENAME, below(AT_FDCWD, to), rename, (const char *from, const char *to), (from, to))
CALL(RENAME, below(folder, to), renameat, (int origin, const char *from, int folder, const char *to),
     (origin, from, folder, to))
CALL(MKDIR, below(AT_FDCWD, path), mkdir, (const char *path, mode_t permissions), (path, permissions))
CALL(MKDIR, below(folder, path), mkdirat, (int folder, const char *path, mode_t permissions),
     (folder, path, permissions))
