//! File systems: from which ones files may be mapped.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns whether a file lies on a file system of this machine, whose pages stay while the file is open.
///
/// Elsewhere - on another machine, or on what a program of a user offers - a file that is replaced, or a connection
/// that is lost, takes pages away that are mapped, and the next look at one is a signal. Where the system does not
/// tell, a file counts as local, except on Linux and Android.
pub(crate) fn is_local(file: &File) -> bool {
    imp::is_local(file)
}

/// Returns the same for a file of a device, and asks once for the files of one disk.
pub(crate) fn is_local_on(device: u64, file: &File) -> bool {
    static DISK: AtomicU64 = AtomicU64::new(0);
    is_known_or(&DISK, device, || is_local(file))
}

/// Returns whether a device is the `disk` that is known to be local, or else what `ask` says, and notes a local disk.
///
/// The number of a disk is the disk's. One that begins with zero is of no disk, and the next file system may get it.
fn is_known_or(disk: &AtomicU64, device: u64, ask: impl FnOnce() -> bool) -> bool {
    let is_disk = imp::is_disk(device);
    if is_disk && disk.load(Ordering::Relaxed) == device {
        return true;
    }
    let is_local = ask();
    if is_disk && is_local {
        disk.store(device, Ordering::Relaxed);
    }
    is_local
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod imp {
    use std::fs::File;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    pub(super) const fn is_disk(device: u64) -> bool {
        libc::major(device) != 0
    }

    /// The types of file systems that are not local, by the magic numbers of Linux and of those who ship their own.
    pub(super) const REMOTE: [u32; 24] = [
        0x6969,      // nfs
        0xff53_4d42, // cifs
        0xfe53_4d42, // smb2, smb3
        0x517b,      // smb
        0x6573_5546, // fuse, virtiofs
        0x0102_1997, // 9p
        0x5346_414f, // afs, OpenAFS
        0x6b41_4653, // kafs
        0x00c3_6400, // ceph
        0x0bd0_0bd0, // lustre
        0x4750_4653, // gpfs
        0x7375_7245, // coda
        0x564c,      // ncp
        0x0116_1970, // gfs2
        0x7461_636f, // ocfs2
        0x2003_0528, // orangefs
        0x1983_0326, // beegfs
        0xaad7_aaea, // panfs
        0x6163_6673, // acfs
        0xbeef_dead, // snfs
        0x786f_4256, // vboxsf
        0x7c7c_6673, // prl_fs
        0xbacb_acbc, // vmhgfs
        0x5346_414e, // nafs
    ];

    pub(super) fn is_local(file: &File) -> bool {
        let mut told = MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: the structure is there to be written to.
        if unsafe { libc::fstatfs(file.as_raw_fd(), told.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: zeros are a value of the structure, whatever the system has written over them.
        let told = unsafe { told.assume_init() };
        is_local_type(told.f_type)
    }

    /// The width of a type, and its sign, are the architecture's: 32 bits are what it is made of.
    pub(super) fn is_local_type(told: impl TryInto<i128>) -> bool {
        let magic = told.try_into().ok().and_then(|told| u32::try_from(told & 0xffff_ffff).ok());
        magic.is_some_and(|magic| !REMOTE.contains(&magic))
    }
}

#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
mod imp {
    use std::fs::File;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    /// Numbers of devices have no form that is known.
    pub(super) const fn is_disk(_: u64) -> bool {
        false
    }

    pub(super) fn is_local(file: &File) -> bool {
        let mut told = MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: the structure is there to be written to.
        let failed = unsafe { libc::fstatfs(file.as_raw_fd(), told.as_mut_ptr()) } != 0;
        // SAFETY: zeros are a value of the structure, whatever the system has written over them.
        let told = unsafe { told.assume_init() };
        #[allow(clippy::useless_conversion, reason = "the width of the flags, and their sign, are the system's")]
        let (flags, local) = (u64::from(told.f_flags), u64::try_from(libc::MNT_LOCAL).unwrap_or(0));
        !failed && flags & local != 0
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "freebsd")))]
mod imp {
    pub(super) const fn is_disk(_: u64) -> bool {
        false
    }

    pub(super) const fn is_local(_: &std::fs::File) -> bool {
        true
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_told_whatever_sign_their_number_has() {
        for magic in imp::REMOTE {
            assert!(!imp::is_local_type(i64::from(magic)), "{magic:#x}");
            assert!(!imp::is_local_type(i64::from(magic.cast_signed())), "{magic:#x}");
        }
        // ext4, xfs, btrfs, tmpfs, overlayfs, squashfs, zfs, f2fs, erofs.
        let local = [
            0xef53_u32,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x7371_7368,
            0x2fc1_2fc1,
            0xf2f5_2010,
            0xe0f5_e1e2,
        ];
        assert!(local.into_iter().all(imp::is_local_type));
        assert!(is_local(&File::open(std::env::current_exe().unwrap()).unwrap()));
    }

    #[test]
    fn the_files_of_one_disk_are_asked_for_once_and_those_of_no_disk_each_time() {
        let known = AtomicU64::new(0);
        let (disk, other, none) = (libc::makedev(8, 1), libc::makedev(8, 2), libc::makedev(0, 30));
        for (device, is_asked) in
            [(disk, true), (disk, false), (none, true), (none, true), (disk, false), (other, true), (disk, true)]
        {
            let mut asked = false;
            assert!(is_known_or(&known, device, || {
                asked = true;
                true
            }));
            assert_eq!(asked, is_asked, "{device:#x}");
        }
        assert!(!is_known_or(&known, other, || false) && !is_known_or(&known, other, || false));
    }
}
