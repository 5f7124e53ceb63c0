//! The generations of stored records, read without their bins.

use abs_asb::Digest;

use crate::connection::Connection;
use crate::message::{
    HEADER, RequestHeader, be_u32, close_envelope, field, info1, open_envelope, push_field,
};
use crate::{Cluster, ClusterError, ResultCode, partition_of};

impl Cluster {
    /// The generation of the record of each digest, in this order; `None` where there is none. One request for each.
    pub async fn generations(
        &self,
        namespace: &str,
        digests: &[Digest],
    ) -> Result<Vec<Option<u32>>, ClusterError> {
        let map = self.partition_map(namespace).await?;
        let mut generations = vec![None; digests.len()];
        for (index, node) in map.nodes().iter().enumerate() {
            let is_owned = |at: &usize| map.owner(partition_of(&digests[*at])) == Some(index);
            let owned: Vec<_> = (0..digests.len()).filter(is_owned).collect();
            if owned.is_empty() {
                continue;
            }
            let mut connection = self.connection(node).await?;
            for at in owned {
                generations[at] = connection.read_generation(namespace, &digests[at]).await?;
            }
            self.release(node, connection);
        }
        Ok(generations)
    }
}

impl Connection {
    async fn read_generation(
        &mut self,
        namespace: &str,
        digest: &Digest,
    ) -> Result<Option<u32>, ClusterError> {
        let mut request = Vec::with_capacity(128);
        let start = open_envelope(&mut request);
        let info1 = info1::READ | info1::GET_NO_BINS;
        RequestHeader { info1, fields: 2, ..RequestHeader::default() }.append_to(&mut request);
        push_field(&mut request, field::NAMESPACE, namespace.as_bytes());
        push_field(&mut request, field::DIGEST, digest);
        close_envelope(&mut request, start);
        self.send(&request).await?;
        let body = self.receive().await?;
        let header = self.body(body).first_chunk::<HEADER>();
        let header = header.ok_or("message header cut short").map_err(|what| self.malformed(what))?;
        match ResultCode(header[5]) {
            ResultCode::OK => Ok(Some(be_u32(header, 6))),
            ResultCode::NOT_FOUND => Ok(None),
            code => {
                let node = self.address().to_owned();
                Err(ClusterError::Server {
                    what: "reading the generation of a record".to_owned(),
                    node,
                    code,
                })
            }
        }
    }
}
