//! Processes: one forked child a seed, so that every global counter and every lazily made key starts alike.
//!
//! Called by `pool.rs` from the one thread of the parent. A child runs its seed on a fresh thread (thread-locals hold hash keys
//! too), writes its answer into a pipe and ends. Failure: a panic anywhere in a child, also in a task that nobody joins, ends
//! it with the panic's text as the answer; a child that takes too much of a core, or stands still, is ended by the kernel.

#![allow(
    unsafe_code,
    reason = "fork, pipe, waitpid and personality have no safe form in std"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;

use crate::outside::disk;

/// A machine may be that much slower because others use it.
const STILL_FACTOR: u32 = 20;

/// A running child.
pub(crate) struct Child {
    process: libc::pid_t,
    seconds_max: u32,
    pipe: File,
}

/// Starts this program anew without address randomisation, unless it runs so: hash maps of some crates take part of
/// their keys from addresses. Where the kernel forbids it, a batch is still equal in itself, but perhaps not its replay.
pub(crate) fn fix_addresses() -> std::io::Result<()> {
    const ASK: libc::c_ulong = 0xffff_ffff;
    // SAFETY: the argument asks for the present value and changes nothing.
    let now = unsafe { libc::personality(ASK) };
    if now < 0 || now & libc::ADDR_NO_RANDOMIZE != 0 {
        return Ok(());
    }
    let wanted = (now | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong;
    // SAFETY: changes only where the kernel places the next program.
    if unsafe { libc::personality(wanted) } < 0 {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let arguments = std::env::args_os().skip(1);
    Err(std::process::Command::new(program).args(arguments).exec())
}

/// Runs `work` in a child for at most so many seconds of a core; its answer, or the text of its panic, comes out of the pipe.
pub(crate) fn fork(
    seconds_max: u32,
    work: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> std::io::Result<Child> {
    let mut ends: [RawFd; 2] = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: both descriptors were made above and belong to nobody else.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: the parent has one thread, so the child inherits no lock that another thread held.
    let process = unsafe { libc::fork() };
    match process {
        0 => {
            drop(read);
            be_child(File::from(write), seconds_max, work)
        }
        failed if failed < 0 => Err(std::io::Error::last_os_error()),
        process => {
            drop(write);
            Ok(Child {
                process,
                seconds_max,
                pipe: File::from(read),
            })
        }
    }
}

fn be_child(
    mut pipe: File,
    seconds_max: u32,
    work: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> ! {
    let limit = libc::rlimit {
        rlim_cur: seconds_max.into(),
        rlim_max: libc::rlim_t::from(seconds_max) + 1,
    };
    // SAFETY: without a handler both signals end this process, which is what they are for. The limit is a plain value.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CPU, &limit);
        libc::alarm(seconds_max * STILL_FACTOR);
    }
    if let Ok(copy) = pipe.try_clone() {
        let copy = std::sync::Mutex::new(copy);
        std::panic::set_hook(Box::new(move |panic| {
            if let Ok(mut pipe) = copy.lock() {
                // Nobody is left to be told that the answer could not be written.
                let _ = write!(pipe, "panic: {panic}");
            }
            end(1)
        }));
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "a fresh thread has fresh thread-locals"
    )]
    let answer = std::thread::spawn(work).join();
    // A panic has ended the process in the hook.
    let written = pipe.write_all(&answer.unwrap_or_default());
    end(i32::from(written.is_err()))
}

/// Does `work` while no file of this process can grow beyond so many bytes: a write gets that far, and fails then, as on a full
/// disk.
pub(crate) fn with_file_bytes_max<T>(bytes_max: u64, work: impl FnOnce() -> T) -> T {
    let mut before = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `before` is a place for the answer.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut before) };
    assert_eq!(asked, 0, "the kernel tells its limits");
    let limit = libc::rlimit {
        rlim_cur: bytes_max,
        ..before
    };
    // SAFETY: without a handler the signal would end the process; ignored, writes fail. The limit is a plain value, and lowering the soft
    // one is always allowed, as is raising it again.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
    }
    let done = work();
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &before) };
    done
}

/// Ends at once: the destructors of globals would run against the virtual clock.
fn end(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is needed any more.
    unsafe { libc::_exit(code) }
}

/// Waits until one of `children` has ended; takes it out and tells its place among them and its answer.
pub(crate) fn wait(children: &mut Vec<Child>) -> std::io::Result<(usize, Result<Vec<u8>, String>)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a place for the answer.
        let ended = unsafe { libc::waitpid(-1, &mut status, 0) };
        if ended < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let Some(place) = children.iter().position(|child| child.process == ended) else {
            continue;
        };
        // Most have none.
        let _ = std::fs::remove_dir_all(disk::folder_of(ended as u32));
        let mut answer = Vec::new();
        let mut child = children.swap_remove(place);
        child.pipe.read_to_end(&mut answer)?;
        let result = match () {
            () if libc::WIFSIGNALED(status) => Err(match libc::WTERMSIG(status) {
                libc::SIGXCPU => {
                    format!("took more than {} seconds of a core", child.seconds_max)
                }
                libc::SIGALRM => "stood still".to_owned(),
                signal => format!("ended by signal {signal}"),
            }),
            () if libc::WEXITSTATUS(status) != 0 => {
                Err(String::from_utf8_lossy(&answer).into_owned())
            }
            () => Ok(answer),
        };
        return Ok((place, result));
    }
}
