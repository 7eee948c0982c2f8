//! `make bench`: a config of many machines: how long it takes to read with all its checks, in how much memory,
//! and how fast scripts are rendered for its machines, on one core.
//!
//! The time and the memory are those of the real binary, `reveille check`, from its start to its end.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use reveille::config::loader::Source;
use reveille::pure::boot::decide::decide_script;
use reveille::pure::catalog::image_status::Shelf;
use reveille::pure::client::{Client, Mac, Stage};
use reveille::pure::config::snapshot::Config;
use reveille::pure::machine::orders::Orders;
use reveille::pure::script::render::{self, Scene};

/// The sizes that are measured, the smaller one first: the peak of memory is that of the largest process so
/// far. With each what it may take: seconds, and MiB.
const SIZES: [(u32, f64, Option<f64>); 2] = [(10_000, 0.3, None), (100_000, 3.0, Some(250.0))];
/// How often each config is read; the fastest counts, on machines that others use too.
const TURNS: usize = 5;
/// How many scripts one core should render in a second.
const PACE: f64 = 20_000.0;
const RENDERING: Duration = Duration::from_secs(3);

fn main() {
    let folder = tempfile::tempdir().expect("there is room for a config");
    for name in ["linux", "initrd.gz"] {
        fs::write(folder.path().join(name), "a file").expect("the folder is ours");
    }
    println!("machines    load and validate  wanted    peak memory  wanted    scripts/s  wanted");
    for (machines, seconds, memory) in SIZES {
        let path = folder.path().join(format!("{machines}.yaml"));
        fs::write(&path, written(machines)).expect("the folder is ours");
        let took = (0..TURNS).map(|_| check(&path)).min().unwrap_or_default().as_secs_f64();
        let children = getrusage(UsageWho::RUSAGE_CHILDREN).expect("Linux tells");
        let peak = children.max_rss() as f64 / 1024.0;
        let wanted = memory.map_or("-".to_owned(), |mib| format!("{mib:.0} MiB"));
        let config = Source::File(path).load().expect("the config has no error");
        let pace = scripts_a_second(&config, machines);
        println!(
            "{machines:<10}  {took:>15.2} s  {seconds:>4.1} s  {peak:>10.0} MiB  {wanted:>7}  {pace:>9.0}  {PACE:>6.0}"
        );
    }
}

/// One config as an operator with a program would write it: a dozen profiles, five groups, and machines of
/// which some are told by their serial number or UUID too.
fn written(machines: u32) -> String {
    let mut text = "server: { nbps: [] }\n\
                    images:\n  debian: { kernel: ./linux, initrd: ./initrd.gz, cmdline: [priority=low] }\n\
                    profiles:\n"
        .to_owned();
    for profile in 0..12 {
        let script = if profile % 2 == 0 { "talos" } else { "linux" };
        let image = "image: debian\n    cmdline: [\"console=ttyS1,115200n8\", intel_iommu=off]";
        writeln!(text, "  p{profile}:\n    script: {script}\n    {image}").expect("it is memory");
    }
    text += "groups:\n";
    for group in 0..5 {
        let pattern = format!("mac: \"9c:8e:9{group}:*\", product: \"ProLiant BL46{group}c*\"");
        let rest = format!("match: {{ {pattern} }}\n    profile: p{group}");
        writeln!(text, "  - name: g{group}\n    {rest}").expect("it is memory");
    }
    text += "machines:\n";
    for n in 0..machines {
        let (mac, profile) = (mac(n), n % 12);
        let entry =
            format!("mac: {mac}\n    profile: p{profile}\n    cmdline: [hostname=node-{n}]");
        writeln!(text, "  node-{n}:\n    {entry}").expect("it is memory");
        match n % 4 {
            0 => writeln!(text, "    serial: CZ{n:08}"),
            1 => writeln!(text, "    uuid: 00112233-4455-6677-8899-{n:012x}"),
            _ => Ok(()),
        }
        .expect("it is memory");
    }
    text
}

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac::new([0x52, 0x54, a, b, c, d])
}

/// How long the binary takes for the whole config.
fn check(config: &Path) -> Duration {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.arg("check").arg(config).stdout(Stdio::null());
    command.env("STATE_DIRECTORY", config.with_file_name("state"));
    let begun = Instant::now();
    let status = command.status().expect("the binary runs");
    let took = begun.elapsed();
    assert!(status.success(), "the config is taken up");
    took
}

/// Looks up machine after machine, and renders its script.
fn scripts_a_second(config: &Config, machines: u32) -> f64 {
    let begun = Instant::now();
    let mut rendered = 0_u32;
    let shelf = Shelf::default();
    while begun.elapsed() < RENDERING {
        for _ in 0..100 {
            let mac = mac(rendered.wrapping_mul(7919) % machines);
            let client = Client { mac: Some(mac), ..Client::at(Stage::Ipxe) };
            let script = decide_script(
                &client,
                &config.catalog,
                config.templates.needs_facts(),
                (&shelf, &Orders::default()),
            );
            let script = script.expect("every machine boots");
            let base = "http://192.168.1.2:8080";
            let scene = Scene {
                client: &client,
                mac,
                base,
                http: base,
                id: None,
                file_id: None,
                shelf: &shelf,
            };
            let text = render::render(&config.templates, &script, &config.catalog, scene);
            black_box(text.expect("every script can be rendered"));
            rendered += 1;
        }
    }
    f64::from(rendered) / begun.elapsed().as_secs_f64()
}
