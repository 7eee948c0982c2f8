//! The scripts, and what they fetch.

use std::time::{Duration, Instant};

use indicatif::HumanBytes;

use super::Walk;
use crate::pure::catalog::omni::redacted;
use crate::simulate::journey::{At, Failure, Step};
use crate::simulate::payload::{Kernel, beginning, packing};
use crate::simulate::script::{Deed, End, Run};
use crate::simulate::web::{Agent, Much};

/// How many scripts may lead to one another.
const MOST_SCRIPTS: usize = 10;

/// Where a script leads.
enum Next {
    Script(String),
    End(String),
}

impl<Tell: FnMut(&Step)> Walk<'_, Tell> {
    /// Runs the script, and those that it leads to.
    pub(super) async fn scripts(&mut self, first: String) -> Result<String, Failure> {
        let mut url = first;
        // Those that waited for a key: what comes to one of them again stays there.
        let mut prompted: Vec<(String, String)> = Vec::new();
        for _ in 0..MOST_SCRIPTS {
            let start = Instant::now();
            let got = self.web.get(&url, Agent::Ipxe, Much::Script).await;
            let got = got.map_err(|reason| self.not_fetched(At::Script, &url, reason))?;
            let took = start.elapsed();
            let text = String::from_utf8_lossy(&got.kept);
            let Some(mut run) = Run::new(&text, self.machine) else {
                return self.program(&url, &got.kept, (got.of, took));
            };
            let asked = (url.clone(), text.into_owned());
            if prompted.contains(&asked) {
                return Ok("waits for a key, and shows the same again when none comes".to_owned());
            }
            let told = format!("{}: {} bytes", redacted(&url), got.bytes);
            self.done(At::Script, told, (Vec::new(), took));
            let next = self.script(&mut run, &url).await?;
            if run.has_prompted() {
                prompted.push(asked);
            }
            match next {
                Next::Script(next) => url = next,
                Next::End(end) => return Ok(end),
            }
        }
        Err(Failure {
            at: At::Script,
            reason: format!("{MOST_SCRIPTS} scripts lead to one another"),
            waited_for: "a script that boots something".to_owned(),
            look_at: vec!["the `chain` commands of the boot scripts".to_owned()],
        })
    }

    /// A script has led to something else.
    fn program(
        &mut self,
        url: &str,
        head: &[u8],
        (of, took): (Option<u64>, Duration),
    ) -> Result<String, Failure> {
        let size = of.map_or_else(String::new, |of| format!(", {}", HumanBytes(of)));
        let what = match Kernel::of(head) {
            Some(program) => match program.misfit(self.machine.firmware) {
                Some(misfit) => {
                    let reason = format!("it is a {program}; {misfit}");
                    return Err(self.not_fetched(At::Program, url, reason));
                }
                None => program.to_string(),
            },
            // Any bytes are a program to a BIOS.
            None if self.machine.firmware.platform() == "pcbios" => "an NBP for BIOS".to_owned(),
            None => {
                let reason = format!(
                    "it is neither a script nor a UEFI program: it begins with {}",
                    beginning(head)
                );
                return Err(self.not_fetched(At::Program, url, reason));
            }
        };
        self.done(At::Program, format!("{}: {what}{size}", redacted(url)), (Vec::new(), took));
        Ok(format!("goes over to {}", redacted(url)))
    }

    /// Runs one script.
    async fn script(&mut self, run: &mut Run, at: &str) -> Result<Next, Failure> {
        loop {
            match run.go_on() {
                Deed::Kernel { url, cmdline } => self.kernel(&absolute(&url, at), &cmdline).await?,
                Deed::Initrd { url } => self.initrd(&absolute(&url, at)).await?,
                Deed::Chain { url, has_waited } => {
                    let url = absolute(&url, at);
                    if has_waited && same_path(&url, at) {
                        return Err(refused(run.echoed()));
                    }
                    return Ok(Next::Script(url));
                }
                Deed::End(end) => return ended(end, run.echoed()).map(Next::End),
            }
        }
    }

    async fn kernel(&mut self, url: &str, cmdline: &str) -> Result<(), Failure> {
        let start = Instant::now();
        let got = self.web.get(url, Agent::Ipxe, Much::Head).await;
        let got = got.map_err(|reason| self.not_fetched(At::Kernel, url, reason))?;
        let took = start.elapsed();
        let size = self.size(At::Kernel, url, got.of)?;
        let kernel = Kernel::of(&got.kept).ok_or_else(|| {
            let begins = beginning(&got.kept);
            let reason = format!("it is no kernel that iPXE can start: it begins with {begins}");
            self.wrong_file(At::Kernel, url, reason)
        })?;
        if let Some(misfit) = kernel.misfit(self.machine.firmware) {
            let reason = format!("it is a {kernel}; {misfit}");
            return Err(self.wrong_file(At::Kernel, url, reason));
        }
        let notes = vec![format!("its command line: {}", redacted(cmdline))];
        self.done(At::Kernel, format!("{kernel}, {size}"), (notes, took));
        Ok(())
    }

    async fn initrd(&mut self, url: &str) -> Result<(), Failure> {
        let start = Instant::now();
        let got = self.web.get(url, Agent::Ipxe, Much::Head).await;
        let got = got.map_err(|reason| self.not_fetched(At::Initrd, url, reason))?;
        let size = self.size(At::Initrd, url, got.of)?;
        let packing = packing(&got.kept)
            .map_or_else(|| format!("begins with {}", beginning(&got.kept)), str::to_owned);
        let file = url.split('?').next().unwrap_or(url).rsplit('/').next().unwrap_or(url);
        let told = format!("{file}: {packing}, {size}");
        self.done(At::Initrd, told, (Vec::new(), start.elapsed()));
        Ok(())
    }

    fn size(&self, at: At, url: &str, of: Option<u64>) -> Result<HumanBytes, Failure> {
        let of = of.ok_or_else(|| "the server does not tell its size".to_owned());
        let of = of.and_then(|of| if of > 0 { Ok(of) } else { Err("it is empty".to_owned()) });
        of.map(HumanBytes).map_err(|reason| self.wrong_file(at, url, reason))
    }

    fn wrong_file(&self, at: At, url: &str, reason: String) -> Failure {
        Failure {
            look_at: vec!["the file that the config names for it, under `images`".to_owned()],
            ..self.not_fetched(at, url, reason)
        }
    }
}

/// A URL in the script that came from `at`.
fn absolute(url: &str, at: &str) -> String {
    let base = reqwest::Url::parse(at);
    base.and_then(|base| base.join(url)).map_or_else(|_| url.to_owned(), Into::into)
}

fn same_path(url: &str, at: &str) -> bool {
    url.split('?').next() == at.split('?').next()
}

/// The script says why it boots nothing, waits and asks again.
fn refused(echoed: &[String]) -> Failure {
    Failure {
        at: At::Script,
        reason: format!("the machine is refused; its console shows: {}", echoed.join(" / ")),
        waited_for: "a script that boots something".to_owned(),
        look_at: vec!["what the console shows names what is missing; `reveille check` and the daemon's log say where".to_owned()],
    }
}

/// What the machine does at the end of its script.
fn ended(end: End, echoed: &[String]) -> Result<String, Failure> {
    let failed = |reason: String| Failure {
        at: At::Script,
        reason,
        waited_for: "a script that boots something".to_owned(),
        look_at: vec!["the boot script's template".to_owned()],
    };
    let said = match echoed {
        [] => String::new(),
        _ => format!(", after its console shows: {}", echoed.join(" / ")),
    };
    match end {
        End::Boots => Ok("boots this kernel".to_owned()),
        End::Menu { title, items, default } => {
            let then = default.map_or_else(
                || "and waits for somebody".to_owned(),
                |label| format!("and takes `{label}` when nobody chooses"),
            );
            Ok(format!("shows the menu `{title}` ({}) {then}", items.join(", ")))
        }
        End::Disk(drive) => Ok(format!("starts its disk {drive} from iPXE{said}")),
        End::Firmware => Ok(format!("goes back to its firmware, for its local disk{said}")),
        End::Waits => Ok(format!("waits for somebody{said}")),
        End::Power(what) => Ok(format!("{what}{said}")),
        End::Endless => Err(failed("it goes round and round without booting anything".to_owned())),
        End::NoLabel(label) => Err(failed(format!("it has no label `{label}` to go to"))),
    }
}
