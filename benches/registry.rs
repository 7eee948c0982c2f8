//! `make bench`: what is remembered of 100,000 machines: how long it takes to open, how large it is, and how
//! long an event waits until it is on the disk, alone and among many.

#![expect(clippy::unwrap_used, reason = "a benchmark stops at what is not there")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reveille::pure::catalog::settings::BootPolicy;
use reveille::pure::client::{Client, Facts, Mac, Stage};
use reveille::pure::event::boot::{Boot, Event, Sent, Starts, Step, Subject, Transport};
use reveille::state::journal::Journal;
use reveille::state::registry::Registry;

const MACHINES: u32 = 100_000;
const ALONE: u32 = 300;

fn event(number: u32, step: Step) -> Event {
    let [a, b, c, d] = number.to_be_bytes();
    let mac = Some(Mac::new([2, 0, a, b, c, d]));
    Event { subject: Subject { mac, name: Some(format!("m{number}")), address: None }, step }
}

/// A boot of a machine that tells what it is.
fn steps() -> [Step; 3] {
    let sent = Sent { bytes: 1000, took: Duration::from_millis(3), over: Transport::Http };
    let facts = Facts {
        serial: Some("KD1234567".into()),
        product: Some("System x3550 M3 -[7944AC1]-".into()),
        vendor: Some("IBM".into()),
        ..Facts::default()
    };
    let client = Box::new(Client { facts: Some(facts), ..Client::at(Stage::Ipxe) });
    let boot = Boot {
        profile: "talos".into(),
        image: Some("talos".into()),
        initrds: 1,
        policy: BootPolicy::Once,
        wipes: true,
    };
    let starts = Starts::Boot(Box::new(boot));
    let image = |part: &str| Step::ImageSent { file: format!("talos/{part}"), sent: sent.clone() };
    let script = Step::ScriptServed { starts, does: "talos".into(), client, sent: sent.clone() };
    [script, image("kernel"), image("initrd")]
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Registry::open(folder.path(), Arc::new(Journal::default())).unwrap();
    let registry = open();
    let began = Instant::now();
    for number in 0..MACHINES {
        for step in steps() {
            registry.record(event(number, step));
        }
    }
    registry.flush().unwrap();
    let events = 3 * MACHINES;
    println!(
        "{events} events of {MACHINES} machines at once: {:.2} s",
        began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    for number in 0..ALONE {
        registry.record(event(number, steps()[1].clone()));
        registry.flush().unwrap();
    }
    let each = began.elapsed().as_secs_f64() * 1000.0 / f64::from(ALONE);
    println!("one event alone, until it is on the disk: {each:.2} ms");
    registry.close();
    let size = fs::metadata(folder.path().join("db/registry.db")).unwrap().len();
    println!("the file: {} MiB", size >> 20);
    for _ in 0..3 {
        let began = Instant::now();
        let registry = open();
        let took = began.elapsed();
        assert_eq!(registry.machines().len(), MACHINES as usize);
        println!("opened in {:.2} s", took.as_secs_f64());
        registry.close();
    }
}
