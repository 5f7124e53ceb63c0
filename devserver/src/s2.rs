//! Cells of the sphere: the 64-bit ids that the S2 geometry library gives to points, and the cells that hold
//! several.
//!
//! A face of a cube around the sphere (3 bits), then two bits per level along a Hilbert curve, then a 1 that
//! ends the path.

/// Levels below a face.
const LEVELS: u32 = 30;
/// Turns of the curve.
const SWAP: usize = 1;
const INVERT: usize = 2;
/// Position on the curve of the quadrant (i, j), for each turn.
const POSITION: [[u64; 4]; 4] = [[0, 1, 3, 2], [0, 3, 1, 2], [2, 3, 1, 0], [2, 1, 3, 0]];
/// How the curve turns in the quadrant at each position.
const TURN: [usize; 4] = [SWAP, 0, 0, SWAP | INVERT];

/// The leaf cell of a point, in degrees.
pub(crate) fn leaf(longitude: f64, latitude: f64) -> u64 {
    let (longitude, latitude) = (longitude.to_radians(), latitude.to_radians());
    let point = [longitude.cos() * latitude.cos(), longitude.sin() * latitude.cos(), latitude.sin()];
    let (face, u, v) = project(point);
    let (i, j) = (index(u), index(v));
    let mut turn = if face & 1 != 0 { SWAP } else { 0 };
    let mut id = face;
    for level in (0..LEVELS).rev() {
        let quadrant = ((i >> level & 1) << 1 | (j >> level & 1)) as usize;
        let position = POSITION[turn][quadrant];
        id = id << 2 | position;
        turn ^= TURN[position as usize];
    }
    id << 1 | 1
}

/// The face of the cube that a point is seen through, and where.
fn project([x, y, z]: [f64; 3]) -> (u64, f64, f64) {
    let (ax, ay, az) = (x.abs(), y.abs(), z.abs());
    let axis = if ax > ay && ax > az {
        0
    } else if ay > az {
        1
    } else {
        2
    };
    match (axis, [x, y, z][axis] < 0.0) {
        (0, false) => (0, y / x, z / x),
        (1, false) => (1, -x / y, z / y),
        (2, false) => (2, -x / z, -y / z),
        (0, true) => (3, z / x, y / x),
        (1, true) => (4, z / y, -x / y),
        _ => (5, -y / z, -x / z),
    }
}

/// The row or column of a leaf cell on its face.
fn index(u: f64) -> u64 {
    let s = if u >= 0.0 { 0.5 * (1.0 + 3.0 * u).sqrt() } else { 1.0 - 0.5 * (1.0 - 3.0 * u).sqrt() };
    let most = (1u64 << LEVELS) - 1;
    (s * (1u64 << LEVELS) as f64).floor().clamp(0.0, most as f64) as u64
}

/// The smallest cells, one per face at the most, that hold all of the leaf cells.
pub(crate) fn cover(leaves: &[u64]) -> Vec<u64> {
    let mut cells: Vec<u64> = Vec::new();
    for &leaf in leaves {
        match cells.iter_mut().find(|cell| **cell >> 61 == leaf >> 61) {
            Some(cell) => *cell = ancestor(*cell, leaf),
            None => cells.push(leaf),
        }
    }
    cells.sort_unstable();
    cells
}

/// The smallest cell that holds two cells of one face.
fn ancestor(a: u64, b: u64) -> u64 {
    // The ending bit of a cell is at twice its distance from the leaves.
    let mut end = (a & a.wrapping_neg()).max(b & b.wrapping_neg());
    while (a ^ b) & !((end << 1) - 1) != 0 {
        end <<= 2;
    }
    a & !((end << 1) - 1) | end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_have_the_ids_that_the_library_gives_them() {
        // As Aerospike 8.1.2 stores this point.
        assert_eq!(leaf(-122.1, 37.4), 0x808f_b0bb_44a3_d46b);
        assert_eq!(leaf(0.0, 0.0) >> 61, 0);
        assert_eq!(leaf(0.0, 90.0) >> 61, 2);
        assert_eq!(leaf(180.0, 0.0) >> 61, 3);
    }

    #[test]
    fn a_cover_holds_its_leaves() {
        let leaves = [leaf(-122.1, 37.4), leaf(-122.2, 37.5), leaf(10.0, 50.0)];
        for cell in cover(&leaves) {
            let half = cell & cell.wrapping_neg();
            let inside = leaves.iter().filter(|leaf| (cell - (half - 1)..=cell + (half - 1)).contains(leaf));
            assert!(inside.count() > 0);
        }
        assert_eq!(cover(&leaves[..1]), leaves[..1]);
    }
}
