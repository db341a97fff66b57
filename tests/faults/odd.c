// A file system that shows the files of another directory, and has one habit that some real ones have.
//
//     odd DIRECTORY HABIT MOUNTPOINT
//
// plain                 none
// hanging-locks         a lock is never granted: the server that would grant it does not answer
// strict-locks          an exclusive lock wants a descriptor that is open for writing, as over NFS 4
// no-sync               files and directories cannot be synced: EINVAL
// no-directory-sync     directories cannot be synced: EINVAL
// closed-directories    every other time, a directory cannot be opened: EACCES
// fast-clock            its times are a day ahead
// no-links              files have one name each: EPERM
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int root;
static const char *habit;

static bool has(const char *name) { return strcmp(habit, name) == 0; }
static int done(int result) { return result < 0 ? -errno : 0; }

// Paths begin with a slash, and are within the directory.
static const char *within(const char *path) { return path[1] ? path + 1 : "."; }

static void *init(struct fuse_conn_info *connection, struct fuse_config *config) {
    (void)connection;
    // Nothing is remembered: every call gets here. Inodes have the numbers of the files shown.
    config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
    config->use_ino = 1;
    return NULL;
}

static int get_attributes(const char *path, struct stat *to, struct fuse_file_info *info) {
    (void)info;
    if (fstatat(root, within(path), to, AT_SYMLINK_NOFOLLOW) < 0) return -errno;
    if (has("fast-clock")) to->st_mtim.tv_sec += 24 * 3600;
    return 0;
}

static int set_times(const char *path, const struct timespec times[2], struct fuse_file_info *info) {
    (void)info;
    struct timespec shown[2] = {times[0], times[1]};
    if (has("fast-clock")) shown[1].tv_sec -= 24 * 3600;
    return done(utimensat(root, within(path), shown, AT_SYMLINK_NOFOLLOW));
}

static int make_directory(const char *path, mode_t mode) { return done(mkdirat(root, within(path), mode)); }
static int remove_directory(const char *path) { return done(unlinkat(root, within(path), AT_REMOVEDIR)); }
static int remove_file(const char *path) { return done(unlinkat(root, within(path), 0)); }

static int rename_file(const char *from, const char *to, unsigned flags) {
    return flags ? -EINVAL : done(renameat(root, within(from), root, within(to)));
}

static int link_file(const char *from, const char *to) {
    return has("no-links") ? -EPERM : done(linkat(root, within(from), root, within(to), 0));
}

static int open_file(const char *path, struct fuse_file_info *info) {
    int file = openat(root, within(path), info->flags);
    if (file < 0) return -errno;
    info->fh = file;
    return 0;
}

static int create_file(const char *path, mode_t mode, struct fuse_file_info *info) {
    int file = openat(root, within(path), info->flags | O_CREAT, mode);
    if (file < 0) return -errno;
    info->fh = file;
    return 0;
}

static int read_file(const char *path, char *to, size_t size, off_t at, struct fuse_file_info *info) {
    (void)path;
    ssize_t read = pread(info->fh, to, size, at);
    return read < 0 ? -errno : read;
}

static int write_file(const char *path, const char *from, size_t size, off_t at, struct fuse_file_info *info) {
    (void)path;
    ssize_t written = pwrite(info->fh, from, size, at);
    return written < 0 ? -errno : written;
}

static int close_file(const char *path, struct fuse_file_info *info) {
    (void)path;
    close(info->fh);
    return 0;
}

static int sync_file(const char *path, int data, struct fuse_file_info *info) {
    (void)path, (void)data;
    return has("no-sync") ? -EINVAL : done(fsync(info->fh));
}

static int lock_file(const char *path, struct fuse_file_info *info, int operation) {
    (void)path;
    while (has("hanging-locks") && !(operation & LOCK_UN)) pause();
    int mode = fcntl(info->fh, F_GETFL) & O_ACCMODE;
    if (has("strict-locks") && (operation & LOCK_EX) && mode == O_RDONLY) return -EBADF;
    return done(flock(info->fh, operation));
}

static int open_directory(const char *path, struct fuse_file_info *info) {
    static atomic_uint opened;
    if (has("closed-directories") && atomic_fetch_add(&opened, 1) % 2 == 0) return -EACCES;
    return open_file(path, info);
}

static int list(const char *path, void *names, fuse_fill_dir_t add, off_t at, struct fuse_file_info *info,
                enum fuse_readdir_flags flags) {
    (void)path, (void)at, (void)flags;
    int file = openat(info->fh, ".", O_RDONLY | O_DIRECTORY);
    DIR *directory = file < 0 ? NULL : fdopendir(file);
    if (!directory) return -errno;
    for (struct dirent *entry; (entry = readdir(directory));) add(names, entry->d_name, NULL, 0, 0);
    closedir(directory);
    return 0;
}

static int sync_directory(const char *path, int data, struct fuse_file_info *info) {
    (void)path, (void)data;
    return has("no-sync") || has("no-directory-sync") ? -EINVAL : done(fsync(info->fh));
}

static const struct fuse_operations operations = {
    .init = init,
    .getattr = get_attributes,
    .utimens = set_times,
    .mkdir = make_directory,
    .rmdir = remove_directory,
    .unlink = remove_file,
    .rename = rename_file,
    .link = link_file,
    .open = open_file,
    .create = create_file,
    .read = read_file,
    .write = write_file,
    .release = close_file,
    .fsync = sync_file,
    .flock = lock_file,
    .opendir = open_directory,
    .readdir = list,
    .releasedir = close_file,
    .fsyncdir = sync_directory,
};

int main(int count, char **arguments) {
    if (count != 4) return 2;
    root = open(arguments[1], O_RDONLY | O_DIRECTORY);
    if (root < 0) return 1;
    habit = arguments[2];
    umask(0);
    char *fuse[] = {arguments[0], "-f", arguments[3], NULL};
    return fuse_main(3, fuse, &operations, NULL);
}
