//! Which device this worker computes on: a GPU of its own per worker of a machine. The choice is a function; a lock per GPU,
//! which the kernel takes back when the process dies however it dies, tells the workers of one machine from each other.
//!
//! Invariant: no two workers of a user on one machine get the same GPU unless one was told its number; GPUs are counted
//! as libtorch counts them, so `CUDA_VISIBLE_DEVICES` is respected.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tch::Device;

/// Launchers' names for the place of a process among those of its machine: torchrun's (and `pixfleet train`'s), Slurm's.
const RANK_VARIABLES: [&str; 2] = ["LOCAL_RANK", "SLURM_LOCALID"];
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Why there is no device for this worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// `--device` names nothing.
    #[error("--device `{name}` is none of auto, cpu, cuda, cuda:N")]
    Unknown {
        /// What was typed.
        name: String,
    },
    /// A GPU was asked for.
    #[error(
        "--device {name}: this build cannot drive a GPU, or there is none; build with `--features pixfleet-worker/nccl`"
    )]
    NoGpu {
        /// What was typed.
        name: String,
    },
    /// A GPU that is not there was asked for.
    #[error("--device cuda:{ordinal}: there are {count} GPUs here, cuda:0 and up")]
    NoSuchGpu {
        /// What was typed.
        ordinal: usize,
        /// GPUs that libtorch sees.
        count: usize,
    },
    /// More workers than GPUs, by the launcher's count.
    #[error(
        "more workers than GPUs: {variable} is {rank}, and this process sees {count} GPUs; start one worker per GPU, or \
         say --device cpu"
    )]
    RankBeyondGpus {
        /// Which of the environment's variables.
        variable: &'static str,
        /// Its value.
        rank: usize,
        /// GPUs that libtorch sees.
        count: usize,
    },
    /// More workers than GPUs, by the locks.
    #[error(
        "more workers than GPUs: all {count} that this process sees are held by workers ({holders}); start one worker per \
         GPU, or say --device cpu"
    )]
    AllHeld {
        /// GPUs that libtorch sees.
        count: usize,
        /// Who holds them.
        holders: String,
    },
    /// The own GPU has somebody else's worker on it.
    #[error(
        "more workers than GPUs: {variable} is {rank}, and cuda:{ordinal} is held by a worker already ({holder}); start \
         one worker per GPU, or show these workers other GPUs with CUDA_VISIBLE_DEVICES"
    )]
    Held {
        /// Which of the environment's variables.
        variable: &'static str,
        /// Its value.
        rank: usize,
        /// The GPU that follows from it.
        ordinal: usize,
        /// Who holds it.
        holder: String,
    },
    /// The environment's rank is no number.
    #[error("{variable} is `{value}`; expected the number of this process among those of its machine, 0 and up")]
    BadRank {
        /// Which variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// The locks' folder.
    #[error(
        "cannot hold a GPU by a lock in {}; expected a folder that is this user's alone: remove it, or set TMPDIR to \
         another place", path.display()
    )]
    Lock {
        /// The folder or file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
}

/// What `--device` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A GPU if there is one.
    Auto,
    Cpu,
    /// Any GPU.
    Gpu,
    /// This one.
    Ordinal(usize),
}

impl Asked {
    fn parse(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { name: name.into() };
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Gpu),
            other => {
                let ordinal = other.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                ordinal.map(Self::Ordinal).ok_or_else(unknown)
            }
        }
    }
}

/// The place of this process among those of its machine, as its launcher says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LocalRank {
    variable: &'static str,
    rank: usize,
}

impl LocalRank {
    fn read(env: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, DeviceError> {
        let said = RANK_VARIABLES.into_iter().find_map(|variable| Some((variable, env(variable)?)));
        let Some((variable, value)) = said.filter(|(_, value)| !value.trim().is_empty()) else { return Ok(None) };
        match value.trim().parse() {
            Ok(rank) => Ok(Some(Self { variable, rank })),
            Err(_) => Err(DeviceError::BadRank { variable, value }),
        }
    }
}

/// The GPUs that libtorch counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gpus {
    count: usize,
    /// What `CUDA_VISIBLE_DEVICES` calls them.
    named: Option<Vec<String>>,
}

impl Gpus {
    fn new(count: usize, visible: Option<&str>) -> Self {
        let named = visible.map(|list| list.split(',').map(|name| name.trim().to_string()).collect());
        Self { count, named }
    }

    /// The same for one GPU in processes that see different ones, as far as the list tells.
    fn identity(&self, ordinal: usize) -> String {
        let named = self.named.as_ref().and_then(|names| names.get(ordinal));
        named.cloned().unwrap_or_else(|| ordinal.to_string())
    }

    /// Slurm and Kubernetes may show each process its own GPU alone: then ranks grow and GPUs do not.
    fn is_bound(&self) -> bool {
        self.count == 1 && self.named.is_some()
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Cpu,
    /// This GPU, which nobody holds.
    Own(usize),
    /// This one, which was named; somebody else computes there too.
    Shared(usize),
}

/// The device, from what was typed, the GPUs there, the launcher's word, and who holds which of them.
fn choose(
    (name, asked): (&str, Asked),
    gpus: &Gpus,
    rank: Option<LocalRank>,
    held: &BTreeMap<usize, String>,
) -> Result<Choice, DeviceError> {
    let count = gpus.count;
    match asked {
        Asked::Cpu => return Ok(Choice::Cpu),
        Asked::Auto if count == 0 => return Ok(Choice::Cpu),
        Asked::Gpu | Asked::Ordinal(_) if count == 0 => return Err(DeviceError::NoGpu { name: name.into() }),
        Asked::Ordinal(ordinal) if ordinal >= count => return Err(DeviceError::NoSuchGpu { ordinal, count }),
        Asked::Ordinal(ordinal) if held.contains_key(&ordinal) => return Ok(Choice::Shared(ordinal)),
        Asked::Ordinal(ordinal) => return Ok(Choice::Own(ordinal)),
        Asked::Auto | Asked::Gpu => {}
    }
    let Some(LocalRank { variable, rank }) = rank else {
        let free = (0..count).find(|ordinal| !held.contains_key(ordinal));
        let holders = || held.values().cloned().collect::<Vec<_>>().join(", ");
        return free.map(Choice::Own).ok_or_else(|| DeviceError::AllHeld { count, holders: holders() });
    };
    let ordinal = if gpus.is_bound() { 0 } else { rank };
    if ordinal >= count {
        return Err(DeviceError::RankBeyondGpus { variable, rank, count });
    }
    match held.get(&ordinal) {
        None => Ok(Choice::Own(ordinal)),
        Some(holder) => Err(DeviceError::Held { variable, rank, ordinal, holder: holder.clone() }),
    }
}

/// A GPU that this process holds for as long as it lives, or as this value does.
#[derive(Debug)]
pub(crate) struct GpuLock {
    _file: File,
}

/// The locks of one user on one machine.
struct Locks(PathBuf);

impl Locks {
    /// In the folder for temporary files: it is there for every way of starting a worker.
    fn of_this_user() -> Self {
        let user = rustix::process::getuid().as_raw();
        Self(std::env::temp_dir().join(format!("pixfleet-gpus-{user}")))
    }

    /// Holds the GPU of this identity, or says who does.
    fn hold(&self, identity: &str) -> Result<Result<GpuLock, String>, DeviceError> {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let path = self.0.join(format!("gpu-{}", identity.chars().map(safe).collect::<String>()));
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| DeviceError::Lock { path, source }
        };
        self.make().map_err(failed(&self.0))?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(failed(&path))?;
                let known = !holder.trim().is_empty();
                return Ok(Err(if known { holder.trim().to_string() } else { "a process just started".into() }));
            }
            Err(TryLockError::Error(source)) => return Err(failed(&path)(source)),
        }
        // For whoever meets the lock.
        let written = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
        written.map_err(failed(&path))?;
        Ok(Ok(GpuLock { _file: file }))
    }

    /// A folder that somebody else has made would let him hold all GPUs, or say that nobody does.
    fn make(&self) -> std::io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let about = std::fs::symlink_metadata(&self.0)?;
        let own = about.is_dir() && about.uid() == rustix::process::getuid().as_raw();
        if own { Ok(()) } else { Err(std::io::Error::other("it is another user's, or no folder")) }
    }
}

/// The device that `--device` names, and the lock on it: keep it for as long as this worker computes there.
///
/// # Errors
/// [`DeviceError`], each with what to do.
pub(crate) fn place(name: &str) -> Result<(Device, Option<GpuLock>), DeviceError> {
    let there = pixfleet_shim::cuda::is_available();
    let count = if there { usize::try_from(tch::Cuda::device_count()).unwrap_or(0) } else { 0 };
    let env = |name: &str| std::env::var(name).ok();
    let gpus = Gpus::new(count, env(VISIBLE).as_deref());
    place_among(name, &gpus, LocalRank::read(env)?, &Locks::of_this_user())
}

fn place_among(
    name: &str,
    gpus: &Gpus,
    rank: Option<LocalRank>,
    locks: &Locks,
) -> Result<(Device, Option<GpuLock>), DeviceError> {
    let asked = Asked::parse(name)?;
    // Each round either ends or finds one more GPU that is held.
    let mut held = BTreeMap::new();
    loop {
        match choose((name, asked), gpus, rank, &held)? {
            Choice::Cpu => return Ok((Device::Cpu, None)),
            Choice::Shared(ordinal) => {
                let holder = held.get(&ordinal).map_or("", String::as_str);
                tracing::warn!(ordinal, holder, "another worker computes on this GPU");
                return Ok((Device::Cuda(ordinal), None));
            }
            Choice::Own(ordinal) => match locks.hold(&gpus.identity(ordinal))? {
                Ok(lock) => return Ok((Device::Cuda(ordinal), Some(lock))),
                Err(holder) => drop(held.insert(ordinal, holder)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
