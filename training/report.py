def plot_metrics(rows, file):
    file.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
