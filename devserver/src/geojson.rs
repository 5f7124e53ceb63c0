//! GeoJSON values: on the wire flags, a count of cells, the cells, and the text.

use serde_json::Value;

use crate::result_code::{Outcome, ResultCode};
use crate::s2;

/// Bytes of flags and cell count.
const HEAD: usize = 3;
/// The flag of everything but points.
const REGION: u8 = 1;

/// Checks a value as a client sends it, and gives it the cells with which the server keeps it. A point has
/// the cell that the real server gives it; a region has cells that hold its corners, where the real server
/// has a closer cover.
pub(crate) fn accept(value: &[u8]) -> Outcome<Vec<u8>> {
    let text = text(value).ok_or(ResultCode::GEO_INVALID_GEOJSON)?;
    let json: Value = serde_json::from_slice(text).map_err(|_| ResultCode::GEO_INVALID_GEOJSON)?;
    let shape = Shape::of(&json).ok_or(ResultCode::GEO_INVALID_GEOJSON)?;
    let (flags, cells) = match shape {
        Shape::Point(cell) => (0, vec![cell]),
        Shape::Region(corners) => (REGION, s2::cover(&corners)),
    };
    let mut out = vec![flags];
    out.extend_from_slice(&(cells.len() as u16).to_be_bytes());
    for cell in cells {
        out.extend_from_slice(&cell.to_be_bytes());
    }
    out.extend_from_slice(text);
    Ok(out)
}

const METRES_PER_DEGREE: f64 = 111_195.0;

/// The text of a value.
pub(crate) fn text(value: &[u8]) -> Option<&[u8]> {
    let (head, rest) = value.split_at_checked(HEAD)?;
    let cells = usize::from(u16::from_be_bytes([head[1], head[2]]));
    rest.get(cells * 8..)
}

/// What a GeoJSON object is, as leaf cells.
enum Shape {
    Point(u64),
    Region(Vec<u64>),
}

impl Shape {
    fn of(json: &Value) -> Option<Shape> {
        let coordinates = json.get("coordinates");
        match json.get("type")?.as_str()? {
            "Feature" => Shape::of(json.get("geometry")?),
            "Point" => Some(Shape::Point(cell(coordinates?)?)),
            "AeroCircle" => {
                let radius = coordinates?.get(1)?.as_f64()?;
                let center = coordinates?.get(0)?;
                let (longitude, latitude) = (center.get(0)?.as_f64()?, center.get(1)?.as_f64()?);
                // Corners of a square around the circle, good enough where it does not reach a pole.
                let (up, side) = (
                    radius / METRES_PER_DEGREE,
                    radius / METRES_PER_DEGREE / latitude.to_radians().cos().max(1e-6),
                );
                let corners = [(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)];
                let corner = |(x, y): (f64, f64)| {
                    s2::leaf(longitude + x * side.min(180.0), (latitude + y * up).clamp(-90.0, 90.0))
                };
                Some(Shape::Region(corners.map(corner).into()))
            }
            "Polygon" => Some(Shape::Region(rings(coordinates?)?)),
            "MultiPolygon" => {
                let polygons: Option<Vec<Vec<u64>>> = coordinates?.as_array()?.iter().map(rings).collect();
                Some(Shape::Region(polygons?.concat()))
            }
            _ => None,
        }
    }
}

fn rings(polygon: &Value) -> Option<Vec<u64>> {
    let mut cells = Vec::new();
    for ring in polygon.as_array()? {
        for point in ring.as_array()? {
            cells.push(cell(point)?);
        }
    }
    if cells.is_empty() { None } else { Some(cells) }
}

fn cell(point: &Value) -> Option<u64> {
    let (longitude, latitude) = (point.get(0)?.as_f64()?, point.get(1)?.as_f64()?);
    let is_on_sphere = longitude.abs() <= 180.0 && latitude.abs() <= 90.0;
    is_on_sphere.then(|| s2::leaf(longitude, latitude))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_kept_as_the_real_server_keeps_it() {
        let text = br#"{"type": "Point", "coordinates": [-122.1, 37.4]}"#;
        let kept = accept(&[&[0, 0, 0], &text[..]].concat()).unwrap();
        assert_eq!(kept[..11], [0, 0, 1, 0x80, 0x8f, 0xb0, 0xbb, 0x44, 0xa3, 0xd4, 0x6b]);
        assert_eq!(super::text(&kept), Some(&text[..]));
    }

    #[test]
    fn what_is_no_geojson_is_refused() {
        for text in ["", "{}", "[1]", r#"{"type":"Point","coordinates":[500,0]}"#, r#"{"type":"Spiral"}"#] {
            let value = [&[0, 0, 0], text.as_bytes()].concat();
            assert_eq!(accept(&value), Err(ResultCode::GEO_INVALID_GEOJSON), "{text}");
        }
        assert_eq!(accept(&[0, 0]), Err(ResultCode::GEO_INVALID_GEOJSON));
    }
}
