//! A LAN of network namespaces: a bridge, a router (10.77.0.1) and our appliance (10.77.0.2) on it.

use std::process::Command;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

use super::{PATH, run};

/// Set inside the namespaces, to the number of guests that the test may run at once.
const INSIDE: &str = "REVEILLE_LAB";

/// Guests that run at once: QEMU interprets each on a core.
const GUESTS: usize = 3;
/// Labs with simulated firmware that run at once, beside the guests: they mostly wait.
const SIMULATED: usize = 4;

static GUEST_SLOTS: Slots = Slots::new(GUESTS);
static SIMULATED_SLOTS: Slots = Slots::new(SIMULATED);

/// What a lab takes of the cores.
#[derive(Clone, Copy, Debug)]
pub enum Cost {
    /// Simulated firmware only.
    Simulated,
    /// At most this many guests at once.
    Guests(usize),
    /// All cores.
    Alone,
}

impl Cost {
    fn guests(self) -> usize {
        if let Self::Guests(guests) = self { guests } else { 0 }
    }

    /// Waits until the lab may run. It may until the result is dropped.
    fn wait(self) -> Vec<Share> {
        match self {
            Self::Simulated => vec![SIMULATED_SLOTS.take(1)],
            Self::Guests(guests) => vec![GUEST_SLOTS.take(guests.min(GUESTS))],
            Self::Alone => vec![GUEST_SLOTS.take(GUESTS), SIMULATED_SLOTS.take(SIMULATED)],
        }
    }
}

/// Limits the labs that run side by side.
struct Slots {
    limit: usize,
    /// Held while a lab waits: the next one does not overtake it, so large labs start, too.
    queue: Mutex<()>,
    used: Mutex<usize>,
    released: Condvar,
}

/// Slots that a lab has.
struct Share {
    of: &'static Slots,
    count: usize,
}

impl Slots {
    const fn new(limit: usize) -> Self {
        Self { limit, queue: Mutex::new(()), used: Mutex::new(0), released: Condvar::new() }
    }

    /// Waits until `count` slots are free.
    fn take(&'static self, count: usize) -> Share {
        let _turn = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = self
            .released
            .wait_while(used, |used| *used + count > self.limit)
            .unwrap_or_else(PoisonError::into_inner);
        *used += count;
        Share { of: self, count }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.of.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.count;
        self.of.released.notify_all();
    }
}

/// Runs the calling test inside namespaces of its own: `in_lab!(|lan| { … })`, or
/// `in_lab!(guests: 2, |lan| { … })` if it runs up to two machines in QEMU at once, or
/// `in_lab!(alone, |lan| { … })` if it floods the daemon and needs the cores for itself.
#[macro_export]
macro_rules! in_lab {
    (|$lan:ident| $body:block) => {
        $crate::in_lab!(of $crate::support::lan::Cost::Simulated, |$lan| $body)
    };
    (guests: $guests:expr, |$lan:ident| $body:block) => {
        $crate::in_lab!(of $crate::support::lan::Cost::Guests($guests), |$lan| $body)
    };
    (alone, |$lan:ident| $body:block) => {
        $crate::in_lab!(of $crate::support::lan::Cost::Alone, |$lan| $body)
    };
    (of $cost:expr, |$lan:ident| $body:block) => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here);
        $crate::support::in_lab(name, $cost, |$lan: $crate::support::Lan| $body)
    }};
}

/// Runs `body` inside, or the whole test again from outside. `name` is the path of a function in the
/// test, as `lab::boots::a_test::here`.
pub fn in_lab(name: &str, cost: Cost, body: impl FnOnce(Lan)) {
    if is_inside() {
        body(Lan::new());
        return println!("{CPU_TIME}{:.1}", cpu_seconds());
    }
    let _share = cost.wait();
    let started = Instant::now();
    let test = name.trim_start_matches("lab::").trim_end_matches("::here");
    let output = again_inside()
        .env(INSIDE, cost.guests().to_string())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .output()
        .expect("unshare (package util-linux) runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    println!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let cpu = stdout.lines().find_map(|line| line.strip_prefix(CPU_TIME)).unwrap_or("?");
    println!("lab: {test}: {:.1} s, {cpu} s of CPU time", started.elapsed().as_secs_f64());
    assert!(output.status.success(), "the test failed inside its namespaces, see above");
    assert!(stdout.contains("1 passed"), "the test `{test}` did not run inside its namespaces");
}

/// What a lab prints in front of the CPU time that it took. `--show-output` shows it for each lab.
const CPU_TIME: &str = "LAB-CPU-SECONDS ";

/// CPU time of this process and of all processes that it started and that have ended.
fn cpu_seconds() -> f64 {
    let of = |who| {
        let usage = getrusage(who).expect("a process knows its own usage");
        [usage.user_time(), usage.system_time()]
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
            .iter()
            .sum::<f64>()
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

/// Guests that the test may run at once.
pub fn permitted_guests() -> usize {
    let permitted = std::env::var(INSIDE).ok().and_then(|guests| guests.parse().ok());
    permitted.expect("guests run in a lab")
}

/// Whether this process runs in namespaces that [`again_inside`] made.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// A command that runs this program again in namespaces of its own, which end with it.
pub fn again_inside() -> Command {
    again(&[&["--user", "--map-root-user"], &[]])
}

/// The same, for servers that change their user: in a user namespace there is only one. It takes
/// root.
pub fn again_inside_with_users() -> Command {
    again(&[&[]])
}

/// `unshare` with the first of these arguments that the kernel allows.
fn again(ways: &[&[&str]]) -> Command {
    let works = |way: &&&[&str]| {
        let probe = Command::new("unshare").args(**way).args(["--net", "true"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    let way = ways.iter().find(works).expect(
        "this needs network namespaces: run as root, or (for tests) allow user namespaces: sysctl \
         kernel.unprivileged_userns_clone=1, user.max_user_namespaces, \
         kernel.apparmor_restrict_unprivileged_userns=0",
    );
    let mut command = Command::new("unshare");
    command
        .args(*way)
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().expect("a program has a file"))
        .env(INSIDE, "3")
        .env("PATH", PATH);
    command
}

/// A LAN. Guests attach to it with a tap interface each.
#[derive(Debug)]
pub struct Lan {
    bridge: &'static str,
}

impl Lan {
    /// Makes it, in namespaces that are ours alone.
    pub fn new() -> Self {
        assert!(is_inside(), "a lab changes the network of its namespace");
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        std::fs::create_dir("/run/netns").expect("/run is ours");
        run("ip", &["link", "set", "lo", "up"]);
        let lan = Self::bridge("lan");
        lan.attach("router", "10.77.0.1/24");
        run("ip", &["-n", "router", "addr", "add", "fd77::1/64", "dev", "eth0", "nodad"]);
        lan.attach("appliance", "10.77.0.2/24");
        run("ip", &["-n", "appliance", "route", "add", "default", "via", "10.77.0.1"]);
        lan
    }

    fn bridge(name: &'static str) -> Self {
        let options =
            ["type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"];
        run("ip", &[&["link", "add", name][..], &options].concat());
        run("ip", &["link", "set", name, "up"]);
        Self { bridge: name }
    }

    /// A second LAN, 10.78.0.0/24, on the appliance's `eth1`.
    pub fn second() -> Self {
        let second = Self::bridge("lan2");
        second.plug();
        second
    }

    /// Connects the appliance's `eth1` to it.
    pub fn plug(&self) {
        self.join("appliance", "eth1", "10.78.0.2/24");
        // A card keeps its hardware address, and others have it in their ARP tables.
        run("ip", &["-n", "appliance", "link", "set", "eth1", "address", "02:00:00:78:00:02"]);
    }

    /// Takes the appliance's `eth1` away.
    pub fn unplug(&self) {
        run("ip", &["link", "del", "appliance-eth1"]);
    }

    /// A second LAN, 10.78.0.0/24, behind a host `relay` that routes between the two.
    pub fn behind_a_relay(&self) -> Self {
        let second = Self::bridge("lan2");
        self.attach("relay", "10.77.0.9/24");
        second.join("relay", "eth1", "10.78.0.1/24");
        run(
            "ip",
            &["netns", "exec", "relay", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
        );
        for host in ["router", "appliance"] {
            run("ip", &["-n", host, "route", "add", "10.78.0.0/24", "via", "10.77.0.9"]);
        }
        second
    }

    /// Puts a host onto the LAN: a namespace with `eth0`.
    pub fn attach(&self, name: &str, address: &str) {
        run("ip", &["netns", "add", name]);
        run("ip", &["-n", name, "link", "set", "lo", "up"]);
        self.join(name, "eth0", address);
        run("ip", &["-n", name, "route", "add", "255.255.255.255", "dev", "eth0"]);
    }

    /// Connects an interface of a host to the LAN.
    fn join(&self, host: &str, device: &str, address: &str) {
        let port = format!("{host}-{device}");
        run("ip", &["link", "add", &port, "type", "veth", "peer", "name", device, "netns", host]);
        run("ip", &["link", "set", &port, "master", self.bridge, "up"]);
        run("ip", &["-n", host, "addr", "add", address, "brd", "+", "dev", device]);
        run("ip", &["-n", host, "link", "set", device, "up"]);
    }

    /// Gives the appliance another interface, with a host on the other end: a network that it does not
    /// serve. The host reaches the LAN through the appliance.
    pub fn attach_elsewhere(&self, name: &str) {
        run("ip", &["netns", "add", name]);
        run(
            "ip",
            &[
                "-n",
                "appliance",
                "link",
                "add",
                "eth1",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                name,
            ],
        );
        for (namespace, device, address) in
            [("appliance", "eth1", "10.88.0.2/24"), (name, "eth0", "10.88.0.50/24")]
        {
            run("ip", &["-n", namespace, "addr", "add", address, "brd", "+", "dev", device]);
            run("ip", &["-n", namespace, "link", "set", device, "up"]);
        }
        run("ip", &["-n", name, "route", "add", "default", "via", "10.88.0.2"]);
    }

    /// Makes a tap interface on the LAN, for QEMU.
    pub fn tap(&self, name: &str) {
        // A machine that is switched on again has the cable that it had.
        if nix::net::if_::if_nametoindex(name).is_err() {
            run("ip", &["tuntap", "add", "dev", name, "mode", "tap"]);
        }
        run("ip", &["link", "set", name, "master", self.bridge, "up"]);
    }
}
