//! `make demo`: one machine of each firmware boots through reveille, and its console is shown.

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use support::appliance::Folder;
use support::guest::{initramfs, kernel};
use support::lan::{again_inside, is_inside};
use support::router::Ipv6;
use support::{Appliance, Dhcp, Guest, Lan, Machine, Router};

const CONFIG: &str = "
server: { nbps: [/usr/lib/ipxe] }
omni:
  demo: { api: https://demo.omni.example, join_token: { file: ./demo.token } }
images:
  talos: { kernel: ./images/linux, initrd: ./images/initramfs.gz, talos: { version: v1.11.2 } }
profiles:
  talos: { script: talos, image: talos, omni: demo, cmdline: [console=ttyS0, quiet] }
machines:
  bios: { mac: 52:54:00:77:00:01, profile: talos, replace_ipxe: true }
  uefi: { mac: 52:54:00:77:00:02, profile: talos }
  http: { mac: 52:54:00:77:00:03, profile: talos }
";

fn main() -> ExitCode {
    if is_inside() {
        demonstrate(&Lan::new());
        return ExitCode::SUCCESS;
    }
    match again_inside().status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot run unshare (package util-linux): {error}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(lan: &Lan) {
    let folder = Folder::new();
    folder.write("config.yaml", CONFIG);
    folder.write("demo.token", "a-token-for-the-demo\n");
    let images = folder.path().join("images");
    fs::create_dir_all(&images).expect("the folder is writable");
    fs::copy(kernel(), images.join("linux")).expect("the folder is writable");
    initramfs(&images);

    println!("router:   dnsmasq, 10.77.0.1, leases addresses and knows nothing of booting");
    println!("reveille: 10.77.0.2, with this config:{CONFIG}");
    let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
    let _appliance = Appliance::start(&folder);
    let machines = [
        ("bios", Machine::Bios, "52:54:00:77:00:01"),
        ("uefi", Machine::Uefi, "52:54:00:77:00:02"),
        ("http", Machine::UefiHttp, "52:54:00:77:00:03"),
    ];
    let shown = machines.map(|(name, machine, mac)| {
        let guest = Guest::power_on(lan, machine, mac);
        thread::spawn(move || (name, show(name, guest)))
    });
    let lines = shown.map(|thread| thread.join().expect("a console is shown to its end"));
    println!("\nEach machine's kernel was started with:\n");
    for (name, line) in lines {
        println!("{name}: {line}\n");
    }
}

/// Prints a machine's console as it grows, and returns the command line of its kernel.
fn show(name: &str, mut guest: Guest) -> String {
    let mut shown = 0;
    loop {
        let ended = guest.has_ended();
        let console = guest.console();
        let lines: Vec<&str> = console.split(['\n', '\r']).collect();
        // The last one may still be growing.
        let whole = if ended { lines.len() } else { lines.len().saturating_sub(1) };
        for line in &lines[shown.min(whole)..whole] {
            let text: String = line.chars().filter(|c| !c.is_control()).collect();
            if !text.trim().is_empty() {
                println!("{name}: {text}");
            }
        }
        shown = whole;
        if ended {
            return guest.command_line();
        }
        thread::sleep(Duration::from_millis(200));
    }
}
