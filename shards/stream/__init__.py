"""The stream: plan, epoch order, readers and batches."""
