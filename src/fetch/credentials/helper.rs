//! [`Programs`]: credential helpers, which of them may be run, and what they answer.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{AccessFlags, Pid, eaccess, geteuid};

use crate::config::Environment;
use crate::fetch::Error;
use crate::fetch::credentials::file::{Malformed, Tree};
use crate::fetch::credentials::{Credentials, Secret, shown};

/// Most bytes that a helper may answer: 64 KiB, many times a token.
pub const HELPER_BYTES: usize = 64 << 10;

/// Longest time that a helper may take: 10 s, or less if the caller has less.
pub const HELPER_TIME: Duration = Duration::from_secs(10);

/// Whose programs credential helpers are, which says whether they are run and how (T-24).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Programs {
    /// The system's: only what nobody but `owner` and root can change, and with a clean environment.
    System {
        /// What `/` stands for.
        root: PathBuf,
        /// 0, except in tests.
        owner: u32,
    },
    /// A user's own: with the environment of this process.
    User {
        /// The user.
        uid: u32,
        /// Where to look, as `$PATH`; relative directories do not count.
        path: OsString,
    },
}

/// Who says that a helper is to be asked.
pub(super) struct NamedIn<'a> {
    pub(super) path: &'a Path,
    /// What the file was when it was read, if that is known.
    pub(super) opened: Option<&'a Metadata>,
}

impl Programs {
    /// The user's where the files of the user count, else the system's (T-22).
    pub fn of(environment: &Environment, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        match environment.user {
            None => Self::System { root: environment.root.clone(), owner: 0 },
            Some(_) => Self::User { uid: geteuid().as_raw(), path: variable("PATH").unwrap_or_default() },
        }
    }

    /// What the helper has for a host; none if it says that it has nothing (rule U-4).
    pub(super) fn ask(
        &self,
        helper: &str,
        named_in: &[NamedIn<'_>],
        host: &str,
        deadline: Instant,
    ) -> Result<Option<Credentials>, Error> {
        let found = self.permit(helper, named_in).and_then(|program| {
            let mut command = Command::new(program);
            command.arg0(format!("{PREFIX}{helper}"));
            self.surround(&mut command);
            Exchange::with(command, host)?.run(deadline.min(Instant::now() + HELPER_TIME))?.read()
        });
        found.map_err(|fault| {
            let named_in: Vec<String> = named_in.iter().map(|file| shown(file.path)).collect();
            Error::CredentialHelper { helper: helper.to_owned(), named_in, fault }
        })
    }

    /// The program, if it may be run.
    ///
    /// Its name is no path. For the system, the configuration, the program and every directory on the way to them are
    /// root's, and only root can write them; for a user, nobody but the user and root can write the configuration
    /// (T-24).
    fn permit(&self, helper: &str, named_in: &[NamedIn<'_>]) -> Result<PathBuf, Fault> {
        if helper.is_empty() || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        {
            return Err(Fault::Name);
        }
        if named_in.is_empty() {
            return Err(Fault::NamedNowhere);
        }
        let program = format!("{PREFIX}{helper}");
        match self {
            Self::System { root, owner } => {
                for file in named_in {
                    follow(root, file.path, *owner)?;
                }
                let candidates =
                    SYSTEM_DIRECTORIES.iter().map(|directory| root.join(directory).join(&program));
                for candidate in candidates {
                    match fs::symlink_metadata(&candidate) {
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => return Err(Fault::unreadable(&candidate, &error)),
                        Ok(_) => {
                            let program = follow(root, &candidate, *owner)?;
                            return if is_program(&program) {
                                Ok(program)
                            } else {
                                Err(Fault::NoProgram(program))
                            };
                        }
                    }
                }
                Err(Fault::Absent)
            }
            Self::User { uid, path } => {
                for file in named_in {
                    match file.opened {
                        Some(metadata) => check(file.path, metadata, *uid)?,
                        None => {
                            let metadata = fs::metadata(file.path)
                                .map_err(|error| Fault::unreadable(file.path, &error))?;
                            check(file.path, &metadata, *uid)?;
                        }
                    }
                }
                let mut candidates = std::env::split_paths(path)
                    .filter(|directory| directory.is_absolute())
                    .map(|directory| directory.join(&program));
                candidates.find(|candidate| is_program(candidate)).ok_or(Fault::Absent)
            }
        }
    }

    /// The environment in which a helper runs (T-24).
    fn surround(&self, command: &mut Command) {
        match self {
            Self::System { .. } => {
                let path: Vec<String> =
                    SYSTEM_DIRECTORIES.iter().map(|directory| format!("/{directory}")).collect();
                command.env_clear().envs([("PATH", path.join(":").as_str()), ("LANG", "C"), ("HOME", "/")]);
                command.current_dir("/");
            }
            Self::User { .. } => {}
        }
    }
}

/// Why a helper gave no answer. No word of what it said is kept, because that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// There is no such program.
    Absent,
    /// It says something else than was asked.
    Answer(String),
    /// It ended otherwise than with status 0.
    Failed(String),
    /// Its name could be a path, or is empty (T-24).
    Name,
    /// No file is known that names it, so that nobody can say whose it is (T-24).
    NamedNowhere,
    /// What has its name cannot be run.
    NoProgram(PathBuf),
    /// It answers more than [`HELPER_BYTES`].
    TooLong,
    /// It could not be run.
    Start(String),
    /// It did not end in time.
    TimedOut,
    /// A file or directory is not known to be the system's, or the user's (T-24).
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// Who could write it.
        detail: String,
    },
}

impl Fault {
    fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::Untrusted { path: path.to_owned(), detail: error.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no such program where it is looked for"),
            Self::Answer(detail) => write!(f, "its answer cannot be used: {detail}"),
            Self::Failed(detail) => write!(f, "it failed: {detail}"),
            Self::Name => f.write_str("its name may have only letters, digits, \"_\" and \"-\""),
            Self::NamedNowhere => f.write_str("no file is known that names it"),
            Self::NoProgram(path) => write!(f, "\"{}\" is not a program", shown(path)),
            Self::TooLong => write!(f, "it answers more than {HELPER_BYTES} bytes"),
            Self::Start(detail) => write!(f, "it cannot be run: {detail}"),
            Self::TimedOut => {
                write!(f, "it did not end in time, which is at most {} s", HELPER_TIME.as_secs())
            }
            Self::Untrusted { path, detail } => {
                write!(f, "it is not run, because \"{}\" is not trusted: {detail}", shown(path))
            }
        }
    }
}

/// Follows a path name by name, symbolic links too; nothing on the way may be anybody else's (T-24).
fn follow(root: &Path, path: &Path, owner: u32) -> Result<PathBuf, Fault> {
    let path = std::path::absolute(path).map_err(|error| Fault::unreadable(path, &error))?;
    let (root, rest) = match path.strip_prefix(root) {
        Ok(rest) => (root, rest),
        Err(_) => (Path::new("/"), path.as_path()),
    };
    let names = |path: &Path| -> Vec<OsString> {
        let names = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
        names.map(|name| name.as_os_str().to_owned()).rev().collect()
    };
    let (mut place, mut ahead, mut links) = (root.to_owned(), names(rest), 0..SYMBOLIC_LINKS);
    let read = |place: &Path| fs::symlink_metadata(place).map_err(|error| Fault::unreadable(place, &error));
    check(&place, &read(&place)?, owner)?;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            if place != root {
                place.pop();
            }
            continue;
        }
        let next = place.join(name);
        let metadata = read(&next)?;
        check(&next, &metadata, owner)?;
        if metadata.is_symlink() {
            let target = fs::read_link(&next).map_err(|error| Fault::unreadable(&next, &error))?;
            if links.next().is_none() {
                let detail = "there are too many symbolic links".to_owned();
                return Err(Fault::Untrusted { path: next, detail });
            }
            if target.is_absolute() {
                root.clone_into(&mut place);
            }
            ahead.extend(names(&target));
        } else {
            place = next;
        }
    }
    Ok(place)
}

/// Only `owner` and root may be able to write it. Where there are access control lists, the bits of the group are
/// the most that any of them grants; acl(5).
fn check(path: &Path, metadata: &Metadata, owner: u32) -> Result<(), Fault> {
    let untrusted = |detail: String| Err(Fault::Untrusted { path: path.to_owned(), detail });
    match metadata.uid() {
        uid if uid != 0 && uid != owner => untrusted(format!("it is owned by uid {uid}")),
        // Who may change a link, its directory says.
        _ if metadata.is_symlink() => Ok(()),
        _ if metadata.mode() & 0o022 != 0 => {
            untrusted("it can be written by others than its owner".to_owned())
        }
        _ => Ok(()),
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) && eaccess(path, AccessFlags::X_OK).is_ok()
}

/// A helper that runs in a process group of its own; at the end nothing of that is left.
struct Exchange {
    child: Child,
    group: Pid,
    output: ChildStdout,
    /// How it ended, once it is no process any more.
    status: Option<ExitStatus>,
}

impl Exchange {
    /// Starts the helper and says which host is meant, without a line end, as the reference does.
    fn with(mut command: Command, host: &str) -> Result<Self, Fault> {
        let start = |detail: &dyn fmt::Display| Fault::Start(detail.to_string());
        // What it prints as an error may hold the secret.
        command
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command.spawn().map_err(|e| start(&e))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let group = i32::try_from(child.id()).ok().map(Pid::from_raw);
        let (Some(mut input), Some(output), Some(group)) = (input, output, group) else {
            return Err(start(&"it has no pipes"));
        };
        let exchange = Self { child, group, output, status: None };
        let without_waiting = |end: &dyn AsFd| fcntl(end.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        without_waiting(&input).and_then(|_| without_waiting(&exchange.output)).map_err(|e| start(&e))?;
        match input.write_all(host.as_bytes()) {
            // A helper need not read what it is asked.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(start(&error)),
            Ok(()) | Err(_) => Ok(exchange),
        }
    }

    /// Waits for the end of the helper itself: a child that it leaves behind is neither waited for nor left.
    fn run(mut self, deadline: Instant) -> Result<Output, Fault> {
        let mut said = Vec::new();
        let mut closed = false;
        loop {
            let ended = self.has_ended()?;
            closed = closed || self.drain(&mut said)?;
            if ended {
                self.end();
                let status = self.status.ok_or_else(|| Fault::Start("it cannot be waited for".to_owned()))?;
                return Ok(Output { status, said });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Fault::TimedOut);
            }
            let pause = left.min(PAUSE);
            if closed {
                thread::sleep(pause);
            } else {
                let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
                // Whatever comes of it, the next round sees.
                let _ = poll(&mut [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)], timeout);
            }
        }
    }

    /// Whether the helper has ended. It stays a zombie, so that its number means nobody else yet.
    fn has_ended(&self) -> Result<bool, Fault> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.group), flags) {
            Ok(status) => Ok(status != WaitStatus::StillAlive),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(Fault::Start(error.to_string())),
        }
    }

    /// Takes what is there; says whether there will be no more.
    fn drain(&mut self, said: &mut Vec<u8>) -> Result<bool, Fault> {
        let mut buffer = [0; 4 << 10];
        loop {
            match self.output.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(count) => said.extend(buffer.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Start(error.to_string())),
            }
            if said.len() > HELPER_BYTES {
                return Err(Fault::TooLong);
            }
        }
    }

    /// Ends whatever is left, in this order: a number without a process could soon be somebody else's.
    fn end(&mut self) {
        // It fails only if nobody is there to be ended.
        let _ = killpg(self.group, Signal::SIGKILL);
        // What waits for a dead disk cannot end, and must not hold us up.
        let until = Instant::now() + ENDING;
        while self.status.is_none() && Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(PAUSE),
                Ok(status) => self.status = status,
                Err(_) => return,
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.end();
        }
    }
}

/// How a helper ended, and what it said until then.
struct Output {
    status: ExitStatus,
    said: Vec<u8>,
}

impl Output {
    /// docker-credential-helpers, protocol of `get`; a user `<token>` means an identity token (rule U-4).
    fn read(&self) -> Result<Option<Credentials>, Fault> {
        if !self.status.success() {
            let nothing = self.said.trim_ascii() == NOTHING.as_bytes();
            return if nothing { Ok(None) } else { Err(Fault::Failed(self.status.to_string())) };
        }
        let unusable = |fault: Malformed| Fault::Answer(fault.to_string());
        let tree = Tree::parse(&self.said).map_err(unusable)?;
        let text = |name: &str| tree.text(&tree.top, name).map_err(unusable);
        let (user, secret) = (text("Username")?, Secret::new(text("Secret")?));
        let credentials = if user == "<token>" {
            let token = Some(secret).filter(|token| !token.expose().is_empty());
            Credentials { user: String::new(), password: Secret::new(String::new()), identity_token: token }
        } else {
            Credentials { user, password: secret, identity_token: None }
        };
        Ok(credentials.if_any())
    }
}

/// What programs are called before their names; containers-auth.json(5).
const PREFIX: &str = "docker-credential-";

/// What a helper says, and fails, if it has nothing; docker-credential-helpers.
const NOTHING: &str = "credentials not found in native keychain";

/// Where the system's programs are, without the slash in front.
const SYSTEM_DIRECTORIES: [&str; 6] =
    ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// As many as the kernel follows; path_resolution(7).
const SYMBOLIC_LINKS: usize = 40;

/// How soon the end of a helper is seen that others of its output outlive.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a killed helper may take to be gone.
const ENDING: Duration = Duration::from_secs(1);
