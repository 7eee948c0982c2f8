//! What stands on a kernel line in the end, of all that is said for it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::layers::{Argument, Layer};

/// Of which every one counts, whoever says it: the kernel, kmod, dracut, systemd or Talos takes them all
/// together, and a machine's word is hardly ever meant to take back its profile's. `talos.environment` is
/// among them by its variable.
const ADDING_UP: [&str; 9] = [
    "acpi_osi",
    "initcall_blacklist",
    "memmap",
    "modprobe.blacklist",
    "pci",
    "rd.driver.blacklist",
    "systemd.mask",
    "systemd.setenv",
    "talos.network.interface.ignore",
];

/// Of which the one says what the next is about, so that neither can go from between the others.
const IN_PAIRS: [&str; 2] = ["hugepages", "hugepagesz"];

/// What stands between the kernel's arguments and those of `init`, and of an installed system in Debian's
/// installers.
const SEPARATORS: [&str; 2] = ["--", "---"];

/// What comes of all that is said.
pub(super) struct Settled<'a> {
    /// What stands on the line, in its order.
    pub(super) line: Vec<Argument<'a>>,
    /// What shall take something away, and finds nothing.
    pub(super) idle: Vec<Argument<'a>>,
}

/// Settles what stands in the end: see [`super::kernel_line`].
pub(super) fn settle(said: Vec<Argument<'_>>) -> Settled<'_> {
    let mut line: Vec<Argument<'_>> = Vec::with_capacity(said.len());
    let mut idle = Vec::new();
    for argument in said {
        if let Some(what) = argument.removes() {
            let before = line.len();
            line.retain(|other| !other.is_meant_by(what));
            if line.len() == before {
                idle.push(argument);
            }
            continue;
        }
        let is_separator = SEPARATORS.contains(&argument.text.as_str());
        if is_separator && line.iter().any(|other| other.text == argument.text) {
            continue;
        }
        line.retain(|other| !argument.replaces(other));
        line.push(argument);
    }
    Settled { line, idle }
}

impl Argument<'_> {
    fn name(&self) -> &str {
        self.text.split('=').next().unwrap_or_default()
    }

    /// What another one must be alike in to be replaced by this one.
    fn key(&self) -> &str {
        const ENVIRONMENT: &str = "talos.environment=";
        let name = self.name();
        match self.text.strip_prefix(ENVIRONMENT) {
            Some(variable) => {
                let len = variable.find('=').unwrap_or(variable.len());
                &self.text[..ENVIRONMENT.len() + len]
            }
            None if ADDING_UP.contains(&name) => &self.text,
            None => name,
        }
    }

    /// What it takes away instead of standing there itself: `-quiet`, `-console=tty0`.
    fn removes(&self) -> Option<&str> {
        let is_the_operators = match self.layer {
            Layer::Image | Layer::Profile | Layer::Group | Layer::Machine => true,
            Layer::Initrd | Layer::Base | Layer::Omni | Layer::Talos | Layer::Address => false,
        };
        let what = self.text.strip_prefix('-').filter(|_| is_the_operators)?;
        (!what.is_empty() && !what.starts_with('-')).then_some(what)
    }

    /// Whether this is what shall be taken away. What iPXE needs stays.
    fn is_meant_by(&self, what: &str) -> bool {
        self.layer != Layer::Initrd && [self.name(), self.key(), &self.text].contains(&what)
    }

    /// Whether `other`, which was said before it, no longer stands once this one is said.
    fn replaces(&self, other: &Argument<'_>) -> bool {
        if other.layer == Layer::Initrd {
            return false;
        }
        if other.layer == self.layer {
            return other.text == self.text && !IN_PAIRS.contains(&self.name());
        }
        other.key() == self.key()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it is about, what is said, and what then stands there.
    struct Case<'a>(&'a str, &'a [(Layer, &'a str)], &'a str);

    /// What comes of these layers, and what was to take something away and found nothing.
    fn settled(said: &Said) -> (String, String) {
        let arguments = said.iter().flat_map(|(layer, texts)| {
            let make = |text: &str| Argument { layer: *layer, owner: "x", text: text.to_owned() };
            texts.split_whitespace().map(make)
        });
        let texts = |arguments: Vec<Argument<'_>>| {
            let texts: Vec<String> = arguments.into_iter().map(|argument| argument.text).collect();
            texts.join(" ")
        };
        let Settled { line, idle } = settle(arguments.collect());
        (texts(line), texts(idle))
    }

    /// What each layer says, its words by blanks.
    type Said = [(Layer, &'static str)];

    #[test]
    fn an_argument_stands_once_and_the_later_layer_wins() {
        use Layer::{Address, Base, Group, Image, Initrd, Machine, Omni, Profile, Talos};
        let table = [
            Case("nothing", &[], ""),
            Case("the same", &[(Image, "quiet"), (Machine, "quiet")], "quiet"),
            Case("the same at once", &[(Profile, "quiet a quiet")], "a quiet"),
            Case("the place is the later", &[(Base, "a b=1 c"), (Profile, "b=2")], "a c b=2"),
            Case("a value", &[(Profile, "iommu=on"), (Group, "iommu=off")], "iommu=off"),
            Case(
                "with and without a value",
                &[(Profile, "nosmt"), (Group, "nosmt=force")],
                "nosmt=force",
            ),
            Case(
                "several of one layer",
                &[(Profile, "console=tty0 console=ttyS1")],
                "console=tty0 console=ttyS1",
            ),
            Case(
                "and they replace all before",
                &[
                    (Base, "console=ttyAMA0 console=tty0 x"),
                    (Profile, "console=tty0 console=ttyS1"),
                ],
                "x console=tty0 console=ttyS1",
            ),
            Case(
                "each layer",
                &[(Image, "a=1"), (Profile, "a=2"), (Group, "a=3"), (Machine, "a=4")],
                "a=4",
            ),
            Case("a name that begins alike", &[(Profile, "a=1"), (Group, "ab=1")], "a=1 ab=1"),
            Case("talos, and the operator's word", &[(Talos, "h=1"), (Profile, "h=0")], "h=0"),
            Case(
                "an address",
                &[(Profile, "ip=dhcp"), (Machine, "ip=x"), (Address, "ip=y")],
                "ip=y",
            ),
            Case("addresses of more than one card", &[(Profile, "ip=a ip=b")], "ip=a ip=b"),
            Case(
                "what adds up",
                &[(Profile, "memmap=a pci=x"), (Machine, "memmap=b")],
                "memmap=a pci=x memmap=b",
            ),
            Case(
                "what adds up, the same",
                &[(Profile, "memmap=a x"), (Machine, "memmap=a")],
                "x memmap=a",
            ),
            Case(
                "variables, each by its name",
                &[
                    (Talos, "talos.environment=L=1"),
                    (Group, "talos.environment=P=1"),
                    (Machine, "talos.environment=P=2"),
                ],
                "talos.environment=L=1 talos.environment=P=2",
            ),
            Case(
                "pairs",
                &[
                    (Base, "hugepages=1"),
                    (Profile, "hugepagesz=1G hugepages=4 hugepagesz=2M hugepages=4"),
                ],
                "hugepagesz=1G hugepages=4 hugepagesz=2M hugepages=4",
            ),
            Case("separators", &[(Profile, "a --- quiet"), (Machine, "--- b")], "a --- quiet b"),
            Case(
                "what iPXE needs",
                &[(Initrd, "initrd=initrd"), (Profile, "initrd=x")],
                "initrd=initrd initrd=x",
            ),
            Case(
                "Omni's",
                &[(Omni, "siderolink.api=a t=1"), (Machine, "siderolink.api=b")],
                "t=1 siderolink.api=b",
            ),
        ];
        for Case(what, said, line) in table {
            assert_eq!(settled(said), (line.to_owned(), String::new()), "{what}");
        }
    }

    #[test]
    fn a_minus_takes_away_what_was_said_before_it_and_never_stands_there_itself() {
        use Layer::{Base, Group, Image, Initrd, Machine, Omni, Profile, Talos};
        let table = [
            (Case("a flag", &[(Base, "a quiet b"), (Profile, "-quiet")], "a b"), ""),
            (
                Case(
                    "a name, all of it",
                    &[(Base, "console=a console=b x"), (Image, "-console")],
                    "x",
                ),
                "",
            ),
            (
                Case(
                    "one value",
                    &[(Base, "console=a console=b"), (Image, "-console=a")],
                    "console=b",
                ),
                "",
            ),
            (Case("another value", &[(Base, "a=1"), (Image, "-a=2")], "a=1"), "-a=2"),
            (Case("and then anew", &[(Base, "a=1 a=2"), (Group, "-a a=3")], "a=3"), ""),
            (Case("what follows stays", &[(Image, "-a"), (Profile, "a=1")], "a=1"), "-a"),
            (Case("in its own layer", &[(Machine, "a=1 -a")], ""), ""),
            (Case("twice", &[(Base, "a"), (Profile, "-a"), (Machine, "-a")], ""), "-a"),
            (Case("one that only begins alike", &[(Base, "ab=1"), (Image, "-a")], "ab=1"), "-a"),
            (
                Case("Omni's", &[(Omni, "siderolink.api=x y"), (Machine, "-siderolink.api")], "y"),
                "",
            ),
            (
                Case(
                    "what `talos` says",
                    &[(Talos, "talos.halt_if_installed=1"), (Machine, "-talos.halt_if_installed")],
                    "",
                ),
                "",
            ),
            (
                Case(
                    "a variable",
                    &[
                        (Talos, "talos.environment=L=1 talos.environment=M=1"),
                        (Machine, "-talos.environment=L"),
                    ],
                    "talos.environment=M=1",
                ),
                "",
            ),
            (
                Case(
                    "what iPXE needs",
                    &[(Initrd, "initrd=initrd"), (Profile, "-initrd")],
                    "initrd=initrd",
                ),
                "-initrd",
            ),
            (Case("separators and a lone one", &[(Profile, "a -- - --- b")], "a -- - --- b"), ""),
            (Case("of a factory it is a word", &[(Base, "a -a")], "a -a"), ""),
        ];
        for (Case(what, said, line), idle) in table {
            assert_eq!(settled(said), (line.to_owned(), idle.to_owned()), "{what}");
        }
    }
}
