//! Numbers and texts as this machine has them in memory.

/// Bytes that grow.
#[derive(Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    #[cfg(feature = "gdb")]
    pub(crate) fn halves<const N: usize>(&mut self, halves: [u16; N]) -> &mut Self {
        halves.iter().for_each(|half| self.0.extend_from_slice(&half.to_ne_bytes()));
        self
    }

    pub(crate) fn words<const N: usize>(&mut self, words: [u32; N]) -> &mut Self {
        words.iter().for_each(|word| self.0.extend_from_slice(&word.to_ne_bytes()));
        self
    }

    /// Adds numbers that are as long as an address.
    #[cfg(feature = "gdb")]
    pub(crate) fn addresses<const N: usize>(&mut self, addresses: [usize; N]) -> &mut Self {
        addresses.iter().for_each(|address| self.0.extend_from_slice(&address.to_ne_bytes()));
        self
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn numbers<const N: usize>(&mut self, numbers: [u64; N]) -> &mut Self {
        numbers.iter().for_each(|number| self.0.extend_from_slice(&number.to_ne_bytes()));
        self
    }

    /// Adds a text up to its first zero, and a zero.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend(text.bytes().take_while(|byte| *byte != 0));
        self.0.push(0);
        self
    }
}
