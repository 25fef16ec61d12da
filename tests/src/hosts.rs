//! Hosts on one machine: each a network namespace of its own with an address of its own, on one bridge. Links can go down
//! as a cable does: nothing closes, nothing arrives.
//!
//! ```text
//! [this process: 10.77.0.1 on the bridge pixfleet0] -- px2 -- [host 2: 10.77.0.2]
//!                                                   -- px3 -- [host 3: 10.77.0.3]
//! ```
//!
//! All of it lies in a namespace that this process has entered by starting itself again ([`enter`]), so the machine's
//! own network is not touched. It needs root, `unshare` and `nsenter` (util-linux), and `ip` (iproute2).

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set for a process that has a network of its own.
const ENTERED: &str = "PIXFLEET_OWN_NETWORK";
const BRIDGE: &str = "pixfleet0";
/// Where this process is on the bridge.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PREFIX: u32 = 16;

/// One host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where the others reach it.
    pub address: Ipv4Addr,
    /// Its namespace's name.
    namespace: String,
    /// The bridge's end of its cable.
    cable: String,
}

/// Hosts by the name of the process that runs there. They go with this process.
#[derive(Debug)]
pub struct Hosts {
    live: BTreeMap<String, Host>,
    made: u16,
}

/// Whether this machine lets this process make hosts.
pub fn possible() -> bool {
    alone().arg("true").output().is_ok_and(|output| output.status.success())
}

/// Starts this program again in a network of its own, in the place of this one. Returns when that has happened.
///
/// # Errors
/// If the program cannot be started again.
pub fn enter() -> Result<()> {
    if std::env::var_os(ENTERED).is_some() {
        return Ok(());
    }
    let own = std::env::current_exe().context("a program has a path")?;
    let error = alone().arg(own).args(std::env::args_os().skip(1)).env(ENTERED, "1").exec();
    Err(error).context("cannot start `unshare` of util-linux")
}

/// Starts what is appended to it in a network of its own. Names of namespaces are files, so it also gets a folder of its
/// own for them: all of it goes with the process, even if that is killed.
fn alone() -> Command {
    const SETUP: &str =
        "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link set lo up && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", SETUP]);
    command
}

impl Hosts {
    /// The bridge, without hosts.
    ///
    /// # Errors
    /// If this process has not entered a network of its own; whatever `ip` says.
    pub fn new() -> Result<Self> {
        ensure!(std::env::var_os(ENTERED).is_some(), "the machine's own network is not to be touched");
        // Without an address of its own it takes the lowest of its ports, and all hosts lose it when that one comes or goes.
        ip(&format!("link add {BRIDGE} address 02:00:00:00:00:01 type bridge"))?;
        ip(&format!("addr add {GATEWAY}/{PREFIX} dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        Ok(Self { live: BTreeMap::new(), made: 1 })
    }

    /// Where this process is reached from all hosts.
    pub fn gateway() -> Ipv4Addr {
        GATEWAY
    }

    /// A new host for the process called `name`, under an address that no other host has had.
    ///
    /// # Errors
    /// Whatever `ip` says.
    pub fn add(&mut self, name: &str) -> Result<Host> {
        self.made = self.made.checked_add(1).context("no address is left")?;
        let [high, low] = self.made.to_be_bytes();
        let address = Ipv4Addr::new(10, 77, high, low);
        let namespace = format!("host-{}", self.made);
        let cable = format!("px{}", self.made);
        let host = Host { address, namespace, cable };
        let Host { namespace, cable, .. } = &host;
        ip(&format!("netns add {namespace}"))?;
        self.live.insert(name.into(), host.clone());
        ip(&format!("link add {cable} type veth peer name eth0 netns {namespace}"))?;
        ip(&format!("link set {cable} master {BRIDGE} up"))?;
        for what in ["link set lo up", &format!("addr add {address}/{PREFIX} dev eth0"), "link set eth0 up"] {
            ip(&format!("-netns {namespace} {what}"))?;
        }
        Ok(host)
    }

    /// Takes the link of a host down, or up again; what `ip` says of it then.
    ///
    /// # Errors
    /// If there is no such host; whatever `ip` says.
    pub fn set_link(&self, name: &str, up: bool) -> Result<String> {
        let host = self.live.get(name).with_context(|| format!("{name} has no host of its own"))?;
        let state = if up { "up" } else { "down" };
        ip(&format!("link set {} {state}", host.cable))?;
        let said = ip_says(&format!("-brief link show {}", host.cable))?;
        Ok(said.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }
}

impl Host {
    /// `command`, run on this host, in the same process.
    pub fn runs(&self, command: &Command) -> Command {
        let mut here = Command::new("nsenter");
        here.arg(format!("--net=/run/netns/{}", self.namespace)).arg("--").arg(command.get_program());
        here.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => here.env(key, value),
                None => here.env_remove(key),
            };
        }
        here
    }
}

fn ip(arguments: &str) -> Result<()> {
    ip_says(arguments).map(drop)
}

fn ip_says(arguments: &str) -> Result<String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.context("cannot start `ip`: it is in the package iproute2")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
