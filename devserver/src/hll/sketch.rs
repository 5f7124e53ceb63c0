//! A value: its registers, and the estimate that they give.

use super::murmur::murmur3_x64_128;
use crate::msgpack::Value;

const HEAD: usize = 11;
const HLL_BITS: u32 = 6;

/// How many bits name a register, and how many min-hash bits each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) index_bits: u32,
    pub(super) minhash_bits: u32,
}

impl Shape {
    pub(super) fn new(index_bits: u32, minhash_bits: u32) -> Option<Shape> {
        let fits = (4..=16).contains(&index_bits)
            && (minhash_bits == 0 || (4..=51).contains(&minhash_bits))
            && index_bits + minhash_bits <= 64;
        fits.then_some(Shape { index_bits, minhash_bits })
    }

    pub(super) fn registers(self) -> usize {
        1 << self.index_bits
    }

    fn register_bits(self) -> usize {
        (HLL_BITS + self.minhash_bits) as usize
    }

    fn bytes(self) -> usize {
        (self.register_bits() * self.registers()).div_ceil(8)
    }
}

/// A value, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Hll {
    pub(super) shape: Shape,
    /// 0 = not counted since the last change.
    pub(super) cached: u64,
    pub(super) registers: Vec<u64>,
}

impl Hll {
    pub(super) fn empty(shape: Shape) -> Hll {
        Hll { shape, cached: 0, registers: vec![0; shape.registers()] }
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Hll> {
        let (head, packed) = bytes.split_first_chunk::<HEAD>()?;
        let [flags, index_bits, minhash_bits, cached @ ..] = *head;
        let shape = Shape::new(index_bits.into(), minhash_bits.into())?;
        if flags != 0 || packed.len() != shape.bytes() {
            return None;
        }
        let bits = shape.register_bits();
        let register = |at: usize| {
            (at * bits..(at + 1) * bits)
                .fold(0, |value, bit| value << 1 | u64::from(packed[bit / 8] >> (7 - bit % 8) & 1))
        };
        let registers = (0..shape.registers()).map(register).collect();
        Some(Hll { shape, cached: u64::from_le_bytes(cached), registers })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0, self.shape.index_bits as u8, self.shape.minhash_bits as u8];
        out.extend_from_slice(&self.cached.to_le_bytes());
        let mut packed = vec![0u8; self.shape.bytes()];
        let bits = self.shape.register_bits();
        for (at, register) in self.registers.iter().enumerate() {
            for bit in 0..bits {
                if register >> (bits - 1 - bit) & 1 != 0 {
                    let to = at * bits + bit;
                    packed[to / 8] |= 0x80 >> (to % 8);
                }
            }
        }
        out.extend_from_slice(&packed);
        out
    }

    /// The register of an element, and the value that the element asks it to have.
    fn place(&self, element: &Value) -> (usize, u64) {
        let (first, second) = murmur3_x64_128(&element.encode());
        let index = first as usize & (self.shape.registers() - 1);
        let minhash = first >> self.shape.index_bits & ((1 << self.shape.minhash_bits) - 1);
        let rank = u64::from(second.trailing_zeros()) + 1;
        (index, rank << self.shape.minhash_bits | minhash)
    }

    pub(super) fn add(&mut self, element: &Value) -> bool {
        let (at, value) = self.place(element);
        let grows = self.registers[at] < value;
        if grows {
            self.registers[at] = value;
            self.cached = 0;
        }
        grows
    }

    pub(super) fn may_contain(&self, element: &Value) -> bool {
        let (at, value) = self.place(element);
        value <= self.registers[at]
    }

    /// Takes in `other`, which has at least as many registers.
    pub(super) fn unite(&mut self, other: &Hll) {
        let mask = self.shape.registers() - 1;
        for (at, register) in other.registers.iter().enumerate() {
            let value =
                if self.shape.minhash_bits == 0 { register >> other.shape.minhash_bits } else { *register };
            let mine = &mut self.registers[at & mask];
            *mine = (*mine).max(value);
        }
        self.cached = 0;
    }

    pub(super) fn count(&self) -> u64 {
        const MOST: usize = 1 << HLL_BITS;
        if self.cached != 0 {
            return self.cached;
        }
        let n = self.shape.registers() as f64;
        let mut counts = [0u32; MOST + 1];
        for register in &self.registers {
            counts[(register >> self.shape.minhash_bits) as usize] += 1;
        }
        let mut z = n * tau(f64::from(counts[MOST]) / n);
        for count in counts[1..].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += n * sigma(f64::from(counts[0]) / n);
        let alpha = match self.shape.index_bits {
            4 => 0.673,
            5 => 0.697,
            6 => 0.709,
            _ => 0.7213 / (1.0 + 1.079 / n),
        };
        (alpha * n * n / z).round() as u64
    }
}

fn tau(value: f64) -> f64 {
    if value == 0.0 || (value - 1.0).abs() < f64::EPSILON {
        return 0.0;
    }
    let (mut value, mut y, mut z) = (value, 1.0, 1.0 - value);
    loop {
        value = value.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - value).powi(2) * y;
        if before.to_bits() == z.to_bits() {
            return z / 3.0;
        }
    }
}

fn sigma(value: f64) -> f64 {
    if (value - 1.0).abs() < f64::EPSILON {
        return f64::INFINITY;
    }
    let (mut value, mut y, mut z) = (value, 1.0, value);
    loop {
        value *= value;
        let before: f64 = z;
        z += value * y;
        y += y;
        if before.to_bits() == z.to_bits() {
            return z;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_and_counts_are_near() {
        for (index_bits, minhash_bits) in [(8, 0), (10, 20), (16, 0), (4, 51)] {
            let mut hll = Hll::empty(Shape::new(index_bits, minhash_bits).unwrap());
            for element in 0..5000 {
                hll.add(&Value::Int(element));
            }
            assert!(hll.may_contain(&Value::Int(17)));
            let bytes = hll.encode();
            assert_eq!(bytes.len(), HEAD + hll.shape.bytes());
            let read = Hll::parse(&bytes).unwrap();
            assert_eq!(read.registers, hll.registers);
            if index_bits >= 8 {
                assert!((4000..6000).contains(&read.count()), "{}", read.count());
            }
        }
    }
}
