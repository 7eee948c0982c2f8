//! A rack in one process: sixteen machines of mixed firmware, a server, a neighbour and an operator, whose
//! every step follows from a seed.
//!
//! ```text
//!  machine ─┐               ┌─ loss, copies, overtaking, broken connections
//!  neighbour ├─▶ world ─▶ server ─▶ registry, dhcp::proxy, files, scripts
//!  operator ─┘      └─▶ watch: the invariants, after each step of the server
//! ```
//!
//! **Modelled.** [`machine`] has the firmware (BIOS PXE, UEFI PXE with port 4011, UEFI HTTP Boot, iPXE in a
//! card's ROM), what it loads (iPXE, one that looks for autoexec, one without HTTP, PXELINUX), the scripts as
//! they are rendered, run by [`crate::simulate::script`], installers with answer files, and disks that boot or
//! do not. One machine has two cards, one is behind a relay, one installs from a static address, one is not in
//! the config. [`server`] makes the calls that the shells of DHCP, TFTP and HTTP make, in the time of a clock
//! that jumps; after a kill it has what the registry had written by then, which may be five seconds old.
//! [`neighbour`] sends what anybody on a LAN can send. [`world`] has the queue of events and the faults: lost,
//! doubled and late datagrams, broken connections, power cuts, stops and kills of the server, jumps of its
//! clock. [`watch`] has what must hold after each step, and counts the effects of
//! [`crate::pure::machine::evidence::Effect`] that were seen.
//!
//! **Not modelled.** Sockets, the blocks of a transfer and the limits of rate; a TFTP transfer is whole, or
//! breaks off. The router's DHCP answers always. Images that are fetched by reveille, changes of the config, a
//! damaged registry, several interfaces. A machine behind the relay has no neighbour there: behind a router
//! nobody can tell the two apart.
//!
//! **Two modes.** In the first the neighbour answers no DHCP and claims nobody's address by ARP; then everything
//! must hold. In the second he does both and spoofs UDP sources, but does not see what goes to others; then
//! disks, orders and secrets must be safe, and a machine may fail to boot.
//!
//! **Known, and left as it is.** Behind a router the machine at an address is the one that DHCP named last, which a
//! neighbour can forge: such an address may be learnt as another machine's. Over TFTP an iPXE cannot report that a kernel does not start, and the boot counts. A boot that has received all
//! while the server was down, or whose last ACK was lost, is not counted, and its machine installs once more.
//!
//! A failing seed prints its mode and its trace. `REVEILLE_SEEDS=0..100000` has other seeds run than the first
//! thousand, best with `--release`.

mod datagram;
mod machine;
mod neighbour;
mod rng;
mod script;
mod server;
mod site;
mod tests;
mod trace;
mod watch;
mod world;
