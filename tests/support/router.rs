//! The router: a real DHCP server that knows nothing of network booting.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{inside, packaged};

/// The DHCP servers that OPNsense has.
#[derive(Clone, Copy, Debug)]
pub enum Dhcp {
    Dnsmasq,
    /// It names the appliance, and the NBP for BIOS and for UEFI, in the fields that OPNsense has for
    /// them; as do the two others.
    DnsmasqNamingUs,
    KeaNamingUs,
    IscNamingUs,
    /// It also names a boot file of its own, which is not there (options 66 and 67).
    DnsmasqWithBootFile,
    Kea,
    Isc,
}

/// Whether the router announces IPv6. Old iPXE waits 15 s for it where nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    Announced,
    Silent,
}

/// The running router.
#[derive(Debug)]
pub struct Router {
    servers: Vec<Child>,
    _folder: TempDir,
}

const RANGE: &str = "--dhcp-range=10.77.0.100,10.77.0.200,1h";
const ANNOUNCE: &[&str] = &["--enable-ra", "--dhcp-range=::,constructor:eth0,ra-only,64"];

impl Router {
    /// dnsmasq with these further arguments.
    pub fn dnsmasq(more: &[&str], ipv6: Ipv6) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the router");
        Self { servers: vec![dnsmasq(folder.path(), ipv6, more)], _folder: folder }
    }

    /// A DHCP server on the appliance's own host.
    pub fn on_the_appliance(dhcp: Dhcp) -> Self {
        Self::beside_the_appliance(dhcp, "--bind-dynamic")
    }

    /// The same, where dnsmasq shares its port by this option.
    pub fn beside_the_appliance(dhcp: Dhcp, sharing: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the router");
        let server = match dhcp {
            Dhcp::Kea => kea("appliance", folder.path(), "", ""),
            Dhcp::Isc => isc("appliance", folder.path(), ""),
            _ => {
                let arguments = ["--no-ping", RANGE, "--dhcp-authoritative", sharing];
                ready(bare_dnsmasq("appliance", folder.path(), &arguments), "DHCP, ")
            }
        };
        Self { servers: vec![server], _folder: folder }
    }

    /// Another proxyDHCP server, on this host.
    pub fn proxy(host: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the router");
        let arguments = ["--dhcp-range=10.77.0.0,proxy", "--pxe-service=x86PC,other,other"];
        let command = bare_dnsmasq(host, folder.path(), &arguments);
        Self { servers: vec![ready(command, "DHCP, ")], _folder: folder }
    }

    pub fn start(dhcp: Dhcp, ipv6: Ipv6) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the router");
        let mut servers = vec![match dhcp {
            Dhcp::Dnsmasq => dnsmasq(folder.path(), ipv6, &[]),
            Dhcp::DnsmasqWithBootFile => {
                let boot_file = "--dhcp-boot=from-the-router.kpxe,router,10.77.0.1";
                let options = "--dhcp-option-force=66,10.77.0.1";
                dnsmasq(folder.path(), ipv6, &[boot_file, options])
            }
            Dhcp::DnsmasqNamingUs => {
                let uefi = "--dhcp-match=set:uefi,option:client-arch,7";
                let names = [
                    "--dhcp-boot=tag:!uefi,undionly.kpxe,,10.77.0.2",
                    "--dhcp-boot=tag:uefi,snponly.efi,,10.77.0.2",
                ];
                dnsmasq(folder.path(), ipv6, &[uefi, names[0], names[1]])
            }
            Dhcp::Kea => kea("router", folder.path(), "", ""),
            Dhcp::KeaNamingUs => {
                let class = |name: &str, arch: &str, file: &str| {
                    format!(
                        r#"{{"name": "{name}", "test": "option[93].hex == {arch}",
                            "option-data": [{{"name": "boot-file-name", "data": "{file}"}}]}}"#
                    )
                };
                let bios = class("bios", "0x0000", "undionly.kpxe");
                let uefi = class("uefi", "0x0007", "snponly.efi");
                let next_server = r#""next-server": "10.77.0.2","#;
                let classes = format!(r#""client-classes": [{bios}, {uefi}],"#);
                kea("router", folder.path(), next_server, &classes)
            }
            Dhcp::Isc => isc("router", folder.path(), ""),
            Dhcp::IscNamingUs => isc(
                "router",
                folder.path(),
                "next-server 10.77.0.2;\n\
                 if option arch = 00:07 { filename \"snponly.efi\"; }\n\
                 else { filename \"undionly.kpxe\"; }\n",
            ),
        }];
        match dhcp {
            Dhcp::Kea | Dhcp::KeaNamingUs | Dhcp::Isc | Dhcp::IscNamingUs
                if ipv6 == Ipv6::Announced =>
            {
                let command = bare_dnsmasq("router", folder.path(), ANNOUNCE);
                servers.push(ready(command, "router advertisement enabled"));
            }
            Dhcp::Dnsmasq
            | Dhcp::DnsmasqWithBootFile
            | Dhcp::DnsmasqNamingUs
            | Dhcp::Kea
            | Dhcp::KeaNamingUs
            | Dhcp::Isc
            | Dhcp::IscNamingUs => {}
        }
        Self { servers, _folder: folder }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.kill().ok();
            server.wait().ok();
        }
    }
}

fn dnsmasq(folder: &Path, ipv6: Ipv6, more: &[&str]) -> Child {
    let mut arguments = vec![
        "--no-ping",
        "--dhcp-authoritative",
        RANGE,
        "--dhcp-option=option:router,10.77.0.1",
        // For machines behind the relay.
        "--dhcp-range=set:far,10.78.0.100,10.78.0.200,255.255.255.0,1h",
        "--dhcp-option=tag:far,option:router,10.78.0.1",
    ];
    arguments.extend(more);
    if ipv6 == Ipv6::Announced {
        arguments.extend(ANNOUNCE);
    }
    arguments.push("--bind-interfaces");
    ready(bare_dnsmasq("router", folder, &arguments), "DHCP, sockets bound exclusively")
}

/// A relay agent between two LANs, which names the router and the appliance.
#[derive(Debug)]
pub struct Relay(Child);

impl Relay {
    pub fn start() -> Self {
        let mut command = inside("relay", &packaged("/usr/sbin/dhcrelay", "isc-dhcp-relay"));
        command.args(["-d", "-4", "-a", "-iu", "eth0", "-id", "eth1", "10.77.0.1", "10.77.0.2"]);
        Self(ready(command, "Sending on   Socket/fallback"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// `-d` keeps it root: in a user namespace with one user it cannot change to another.
fn bare_dnsmasq(host: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = inside(host, &packaged("/usr/sbin/dnsmasq", "dnsmasq-base"));
    command
        .args(["-d", "--conf-file=/dev/null", "--user=root", "--port=0", "--interface=eth0"])
        .args(["--pid-file=", "--log-facility=-", "--log-dhcp"])
        .arg(format!("--dhcp-leasefile={}/dnsmasq.leases", folder.display()))
        .args(arguments);
    command
}

/// With these further keys of its subnet, and these of its own.
fn kea(host: &str, folder: &Path, subnet: &str, classes: &str) -> Child {
    let config = folder.join("kea.json");
    let json = r#"{"Dhcp4": {
        CLASSES
        "interfaces-config": {"interfaces": ["eth0"], "dhcp-socket-type": "raw"},
        "lease-database": {"type": "memfile", "persist": false},
        "valid-lifetime": 3600,
        "subnet4": [{
            "id": 1, SUBNET "subnet": "10.77.0.0/24", "interface": "eth0",
            "pools": [{"pool": "10.77.0.100 - 10.77.0.200"}],
            "option-data": [{"name": "routers", "data": "10.77.0.1"}]
        }],
        "loggers": [{"name": "kea-dhcp4", "severity": "INFO",
                     "output_options": [{"output": "stdout", "flush": true}]}]
    }}"#;
    let json = json.replace("CLASSES", classes).replace("SUBNET", subnet);
    fs::write(&config, json).expect("the router's folder is writable");
    let mut command = inside(host, &unconfined("/usr/sbin/kea-dhcp4", "kea-dhcp4-server", folder));
    command.env("KEA_PIDFILE_DIR", folder).env("KEA_LOCKFILE_DIR", folder).arg("-c").arg(config);
    ready(command, "DHCP4_STARTED")
}

/// With these further statements for its subnet.
fn isc(host: &str, folder: &Path, subnet: &str) -> Child {
    let config = folder.join("dhcpd.conf");
    let text = format!(
        "default-lease-time 3600; authoritative; ping-check false; ddns-update-style none;\n\
         option arch code 93 = unsigned integer 16;\n\
         subnet 10.77.0.0 netmask 255.255.255.0 {{\n\
         \x20 range 10.77.0.100 10.77.0.200; option routers 10.77.0.1;\n{subnet}}}\n"
    );
    fs::write(&config, text).expect("the router's folder is writable");
    let leases = folder.join("dhcpd.leases");
    File::create(&leases).expect("the router's folder is writable");
    let mut command = inside(host, &unconfined("/usr/sbin/dhcpd", "isc-dhcp-server", folder));
    command.args(["-f", "-d", "-4", "-cf"]).arg(config).arg("-lf").arg(leases);
    command.arg("-pf").arg(folder.join("dhcpd.pid")).arg("eth0");
    ready(command, "Server starting service")
}

/// A copy under another path: Debian's AppArmor profiles hold these servers, by path, to folders of
/// the host.
fn unconfined(program: &str, package: &str, folder: &Path) -> std::path::PathBuf {
    let original = packaged(program, package);
    let copy = folder.join(original.file_name().expect("a program has a name"));
    fs::copy(&original, &copy).expect("the router's folder is writable");
    copy
}

/// Starts a server and waits for the line that says it serves; its further lines go to the test's
/// output.
fn ready(mut command: Command, line: &str) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    // Some log to one, some to the other: both go through a shell into one pipe.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(command.get_program());
    shell.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::piped());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let mut child = shell.spawn().expect("a shell starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut seen = Vec::new();
    loop {
        match lines.next() {
            Some(Ok(text)) if text.contains(line) => break,
            Some(Ok(text)) => seen.push(text),
            _ => panic!("{command:?} ended before it served:\n{}", seen.join("\n")),
        }
    }
    std::thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|text| println!("router: {text}"))
    });
    child
}
