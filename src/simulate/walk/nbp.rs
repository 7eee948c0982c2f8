//! The NBP: over TFTP, and over HTTP Boot.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::Walk;
use crate::simulate::download::{Action, Broken, Download, Fetched, Wish};
use crate::simulate::journey::{At, Failure, Step};
use crate::simulate::machine::{Firmware, Named};
use crate::simulate::payload::{Kernel, beginning};
use crate::simulate::web::{Agent, Much};

/// The most that a TFTP transfer may take.
const LONGEST_TRANSFER: Duration = Duration::from_mins(2);

impl<Tell: FnMut(&Step)> Walk<'_, Tell> {
    /// Fetches the NBP, as the firmware does.
    pub(super) async fn nbp(&mut self, named: &Named) -> Result<(), Failure> {
        if self.machine.firmware == Firmware::UefiHttp {
            return self.http_boot(&named.boot_file).await;
        }
        // Who is not told to just download asks the boot server, and takes what that names.
        let named = if named.is_final || self.machine.firmware == Firmware::Ipxe {
            named.clone()
        } else {
            self.boot_server(named).await?
        };
        let server = named.next_server;
        let start = Instant::now();
        let fetched =
            match self.machine.firmware {
                Firmware::Bios | Firmware::Ipxe => {
                    self.tftp(server, &named.boot_file, Wish::Bios).await
                }
                Firmware::Uefi | Firmware::UefiX86 | Firmware::UefiHttp => {
                    match self.tftp(server, &named.boot_file, Wish::UefiSize).await {
                        Ok(size) => self.tftp(server, &named.boot_file, Wish::Uefi).await.and_then(
                            |fetched| match size.tsize.filter(|tsize| *tsize != fetched.bytes) {
                                None => Ok(Fetched { tsize: size.tsize, ..fetched }),
                                Some(tsize) => {
                                    Err(Broken::WrongSize { bytes: fetched.bytes, tsize }
                                        .to_string())
                                }
                            },
                        ),
                        Err(broken) => Err(broken),
                    }
                }
            };
        let fetched = fetched.map_err(|reason| Failure {
            at: At::Tftp,
            reason,
            waited_for: format!("{} from {server}, UDP port 69", named.boot_file),
            look_at: vec![
                "the log of the daemon, and `reveille nbps` on its host: is the file there?".to_owned(),
                format!("firewalls between here and {server}: UDP 69, and any UDP port from which the blocks come"),
            ],
        })?;
        let granted: Vec<String> =
            fetched.granted.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let granted = if granted.is_empty() { "no options".to_owned() } else { granted.join(", ") };
        let mut notes = Vec::new();
        if fetched.resent > 0 || fetched.out_of_order > 0 {
            notes.push(format!(
                "{} requests were said again, and {} blocks came out of order: packets are lost on the way",
                fetched.resent, fetched.out_of_order
            ));
        }
        let told = format!("{}: {} bytes ({granted})", named.boot_file, fetched.bytes);
        self.done(At::Tftp, told, (notes, start.elapsed()));
        Ok(())
    }

    /// One TFTP transfer.
    async fn tftp(&self, server: Ipv4Addr, file: &str, wish: Wish) -> Result<Fetched, String> {
        let local = self.address_towards(server);
        let socket = UdpSocket::bind((local, 0))
            .await
            .map_err(|error| format!("no port can be had at {local}: {error}"))?;
        let start = Instant::now();
        let mut download = Download::new(file, wish, start);
        let mut peer = SocketAddr::from((server, 69));
        let mut buffer = vec![0; 1 << 16];
        loop {
            match download.poll() {
                Action::Send(datagram) => {
                    socket
                        .send_to(&datagram, peer)
                        .await
                        .map_err(|error| format!("{peer} cannot be reached: {error}"))?;
                }
                Action::Done(end) => return end.map_err(|broken| broken.to_string()),
                Action::Wait(_) if start.elapsed() > LONGEST_TRANSFER => {
                    return Err(format!("it takes more than {} s", LONGEST_TRANSFER.as_secs()));
                }
                Action::Wait(until) => {
                    match timeout_at(until.into(), socket.recv_from(&mut buffer)).await {
                        Err(_) => download.handle_timeout(Instant::now()),
                        // An ICMP error, as where nobody has the port: the time-out tells it.
                        Ok(Err(_)) => tokio::time::sleep_until(until.into()).await,
                        Ok(Ok((len, from))) => {
                            let is_its = if download.is_answered() {
                                from == peer
                            } else {
                                from.ip() == peer.ip()
                            };
                            if is_its {
                                peer = from;
                                download.handle(&buffer[..len], Instant::now());
                            }
                        }
                    }
                }
            }
        }
    }

    /// Fetches the NBP as UEFI HTTP Boot does.
    async fn http_boot(&mut self, url: &str) -> Result<(), Failure> {
        let start = Instant::now();
        let got = self.web.get(url, Agent::Uefi, Much::All).await;
        let got = got.and_then(|got| match got.of {
            Some(of) if of == got.bytes => Ok(got),
            Some(of) => Err(format!("{} bytes came, and the server said {of}", got.bytes)),
            None => Err("the server does not tell the file's size (Content-Length)".to_owned()),
        });
        let got = got.and_then(|got| match Kernel::of(&got.kept) {
            Some(Kernel::Efi(_) | Kernel::BzImage { has_efi_stub: true, .. }) => Ok(got),
            Some(_) | None => {
                Err(format!("it is no UEFI program: it begins with {}", beginning(&got.kept)))
            }
        });
        let got = got.map_err(|reason| self.not_fetched(At::HttpBoot, url, reason))?;
        let told = format!("{url}: {} bytes", got.bytes);
        self.done(At::HttpBoot, told, (Vec::new(), start.elapsed()));
        Ok(())
    }
}
